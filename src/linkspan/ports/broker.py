"""What the core asks of a broker: a log of topics with durable groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterable, Sequence

    from linkspan.ports.durability import Durability

__all__ = ["STILL", "Broker", "Delivery", "Drift", "HandedOn", "Outgoing", "Seen", "Subscription", "Tap"]

STILL = 4.0
"""Seconds after which nothing is delivered any more to a process that stands still, so that another can take its lanes."""


class Outgoing(msgspec.Struct, eq=False, gc=False):
    """A message on its way to a broker's topic.

    `topic` is `<package>.events` or `<package>.commands`; `name` is the type without its package (`OrderPlaced`,
    `Payments.Charge`); `lane` is 0..63, fixed by the key. `headers` is the canonical block: ASCII lines `name: value` ended by CR LF,
    values percent-encoded, in the order that `envelope.render` gives; it holds neither the sequence nor a broker's own headers.
    `sequence` counts per (source, topic, key) from 1, 0 where there is none; `position` is the outbox row, 0 where there is none.
    """

    topic: str
    name: str
    lane: int
    id: str
    key: str
    headers: bytes
    data: bytes
    sequence: int = 0
    position: int = 0


class Delivery(Protocol):
    """A message handed over by a broker; settled by exactly one of `ack` and `nack`.

    `headers` is the same canonical block as in `Outgoing` (foreign publishers: whatever headers they sent, any order),
    without the status line, broker headers allowed in it. All methods are synchronous, cheap, safe to repeat, harmless after close.
    """

    topic: str
    headers: bytes
    data: bytes

    @property
    def attempt(self) -> int:
        """How often the broker has handed this message to this group, 1 at first."""
        ...

    def ack(self) -> None:
        """Settle: the group is done with it. May be forgotten by a broker that dies (the message comes again)."""
        ...

    def nack(self, delay: float = 0.0) -> None:
        """Give it back, to be delivered again after `delay` seconds. Breaks order per key; the core holds keys instead."""
        ...

    def beat(self) -> None:
        """Say that the work goes on: the broker's redelivery clock starts anew."""
        ...


class HandedOn(msgspec.Struct, eq=False):
    """A delivery that somebody between the broker and its reader hands on: settling it settles `delivery`."""

    delivery: Delivery
    topic: str
    headers: bytes
    data: bytes

    @property
    def attempt(self) -> int:
        """Return what the broker counted."""
        return self.delivery.attempt

    def ack(self) -> None:
        """Settle it."""
        self.delivery.ack()

    def nack(self, delay: float = 0.0) -> None:
        """Give it back."""
        self.delivery.nack(delay)

    def beat(self) -> None:
        """Say that the work goes on."""
        self.delivery.beat()


@dataclass(frozen=True, slots=True)
class Seen:
    """A message that a tap saw: where it stands in its topic, when the broker stored it (seconds since 1970), how many are to come."""

    topic: str
    sequence: int
    stored: float
    headers: bytes
    data: bytes
    pending: int


class Tap(Protocol):
    """Watches topics from beside, disturbing no group."""

    async def add(self, topic: str, *, since: float | None = None) -> int:
        """Watch a topic from a moment on (0 for all that is kept) or from now; return how many are to come first. Raises `Error`."""
        ...

    async def aclose(self) -> None:
        """Stop watching. Idempotent."""
        ...


class Subscription(Protocol):
    """A group's open delivery from one topic."""

    @property
    def patience(self) -> float:
        """Return the seconds within which a delivery is settled or shows a sign of life (`beat`), or comes again; may be infinite."""
        ...

    def bound(self, prefetch: int) -> None:
        """Have at most so many unsettled from now on, each lane for itself. What is in hand, or on its way already, stays."""
        ...

    async def stop(self) -> None:
        """Take no more; deliveries in hand can still be settled. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Drift:
    """A declared stream or consumer that exists with other settings: reported, never overwritten."""

    what: str
    setting: str
    declared: str
    found: str


class Broker(Protocol):
    """A log of topics with durable groups. One module, passes `linkspan.testing.BrokerContract`."""

    @property
    def connected(self) -> bool:
        """Tell whether the server can be reached, as far as is known: False while a lost connection has not come back, or closed."""
        ...

    async def open(self) -> None:
        """Connect. Raises `Error(UNAVAILABLE)` when the server does not answer, `SetupError` on wrong credentials or an unfit server."""
        ...

    async def aclose(self) -> None:
        """Flush acks, close, fail what is in flight with `UNAVAILABLE`. Idempotent, also while other calls are blocked."""
        ...

    async def declare(self, topics: Iterable[str], groups: Iterable[tuple[str, str]], *, lanes: bool = False) -> list[Drift]:
        """Create missing topics and `(topic, group)` consumers; return what exists with other settings. Idempotent.

        With `lanes` the groups have a place per lane, for `subscribe(lanes=...)`. Where a group was read as one before, its
        lanes go on where it stood.
        """
        ...

    def publish(self, message: Outgoing) -> asyncio.Future[None]:
        """Send one message; the future ends when the broker has stored it (a duplicate id within its window counts as stored).

        Many may be in flight; messages published one after the other are stored in that order unless one fails.
        The future raises `Error`: UNAVAILABLE (not known whether it was stored: send it again with the same id),
        INVALID_ARGUMENT (too large for the broker), NOT_FOUND (no such topic). Cancelling the future does not unsend.
        """
        ...

    async def publish_batch(self, messages: Sequence[Outgoing]) -> None:
        """Store 2 to 1000 messages of one topic, all or none, in order, with one sync.

        Raises `Error(ABORTED)` when it may or may not have been stored, or holds an id that the broker has already:
        send them again singly with the same ids.
        """
        ...

    async def subscribe(
        self, topic: str, group: str, receive: Callable[[Delivery], None], *, prefetch: int, lanes: Collection[int] | None = None
    ) -> Subscription:
        """Deliver the topic to `receive`, in stream order, with at most `prefetch` unsettled.

        With `lanes` it delivers just these, in stream order within each lane, from the lane's own place in the group, which was
        declared so; `prefetch` is for each lane. A lane has one subscription at a time: the caller sees to it that an earlier one
        has stopped, or that its process has stood still for `STILL` seconds. Without `lanes` several subscriptions of a group
        share the topic.

        Starts after the group's last settled message: at each start and after each reconnect everything unsettled comes again,
        in stream order, before anything newer (messages settled out of order above the oldest unsettled one may come again as well).
        `receive` is called on the loop, must not block or raise.
        """
        ...

    async def attest(self, topics: Iterable[str] = (), groups: Iterable[tuple[str, str]] = ()) -> Durability:
        """Read the server's settings and say what an acknowledgement is worth, for what was declared here and for these."""
        ...
