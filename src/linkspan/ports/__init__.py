"""What the core asks of the world: time, chance and names; a broker; a store. Protocols and plain values only.

Adapters live in `linkspan.brokers` and `linkspan.stores`, import nothing but this module and the nouns,
and prove themselves with the public suites in `linkspan.testing`.
"""

from linkspan.ports.blobs import BlobPlace
from linkspan.ports.broker import STILL, Broker, Delivery, Drift, HandedOn, Outgoing, Seen, Subscription, Tap
from linkspan.ports.durability import LEVELS, Durability, Finding, Unsafe, attested, judged
from linkspan.ports.runtime import Clock, Ids, Runtime, Timer
from linkspan.ports.store import OUTBOX, Letter, LetterState, Outcome, Scheduled, Session, Store, Tenure, Unit, Value

__all__ = [
    "LEVELS",
    "OUTBOX",
    "STILL",
    "BlobPlace",
    "Broker",
    "Clock",
    "Delivery",
    "Drift",
    "Durability",
    "Finding",
    "HandedOn",
    "Ids",
    "Letter",
    "LetterState",
    "Outcome",
    "Outgoing",
    "Runtime",
    "Scheduled",
    "Seen",
    "Session",
    "Store",
    "Subscription",
    "Tap",
    "Tenure",
    "Timer",
    "Unit",
    "Unsafe",
    "Value",
    "attested",
    "judged",
]
