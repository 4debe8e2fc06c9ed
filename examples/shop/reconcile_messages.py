"""Compare what the services said to each other with what the ledgers say that they did.

Each database keeps, beside the service's tables, how many messages it ever sent (`linkspan_sequence`: the last number of
each topic and key), which of them still wait (`linkspan_outbox`), which it has handled (`linkspan_inbox`) and which it
holds back (`linkspan_letter`). Those are read as plain tables; nothing of linkspan is imported.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Traffic", "check_traffic", "read_traffic"]

# Ledger entries that go with a message: (service, topic) <- entries, each one message.
_SENT: dict[tuple[str, str], tuple[str, ...]] = {
    ("storefront", "shop.orders.v1.commands"): ("storefront.checkout", "storefront.return"),
    ("orders", "shop.orders.v1.events"): ("orders.placed", "orders.settled", "orders.released", "orders.refunded", "orders.refund_refused"),
    ("orders", "shop.payments.v1.commands"): ("orders.reserved", "payments.refunded"),
    ("orders", "shop.inventory.v1.commands"): ("orders.declined",),
    ("inventory", "shop.inventory.v1.events"): ("orders.reserved", "orders.released"),
    ("payments", "shop.payments.v1.events"): ("payments.charged", "payments.declined", "payments.refunded"),
    ("shipping", "shop.shipping.v1.events"): ("shipping.parcel",),
}

# (receiver, sender) <- entries, each one message handled.
_HANDLED: dict[tuple[str, str], tuple[str, ...]] = {
    ("orders", "storefront"): ("storefront.checkout", "storefront.return"),
    ("inventory", "orders"): ("orders.placed", "orders.declined", "orders.refunded"),
    ("orders", "inventory"): ("orders.reserved", "orders.released"),
    ("payments", "orders"): ("orders.reserved", "payments.refunded"),
    ("orders", "payments"): ("payments.charged", "payments.declined", "payments.refunded"),
    ("shipping", "orders"): ("orders.settled",),
    ("orders", "shipping"): ("shipping.parcel",),
    ("notifications", "orders"): ("orders.settled", "orders.released", "orders.refunded", "orders.refund_refused"),
    ("notifications", "shipping"): ("shipping.parcel",),
}


@dataclass(slots=True)
class Traffic:
    """What the databases say about messages, in counts."""

    sent: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    handled: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    waiting: Counter[str] = field(default_factory=Counter[str])
    letters: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])

    @property
    def messages(self) -> int:
        """Durable messages sent, each once."""
        return sum(self.sent.values())

    @property
    def deliveries(self) -> int:
        """Durable messages handled; an event with two readers counts twice."""
        return sum(self.handled.values())

    @property
    def dead_letters(self) -> int:
        """Messages that wait for a person."""
        return sum(count for (_, state), count in self.letters.items() if state == "dead")


def read_traffic(databases: Mapping[str, Path]) -> Traffic:
    """Read the tables that linkspan keeps in each service's database."""
    traffic = Traffic()
    for service, path in databases.items():
        if not path.exists():
            continue
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            for topic, count in database.execute("select topic, sum(last) from linkspan_sequence group by 1"):
                traffic.sent[service, topic] += count
            for source, count in database.execute("select source, count(*) from linkspan_inbox group by 1"):
                traffic.handled[service, source.rpartition("/")[2]] += count
            for state, count in database.execute("select state, count(*) from linkspan_letter group by 1"):
                traffic.letters[service, state] += count
            traffic.waiting[service] += database.execute("select count(*) from linkspan_outbox").fetchone()[0]
    return traffic


def check_traffic(traffic: Traffic, entries: Mapping[str, int], poisoned: int) -> Iterator[str]:
    """Yield what does not fit: `entries` counts ledger entries as `service.kind`, `poisoned` are the dead letters that must be there."""
    yield from _compare("sent by {} to {}", _SENT, traffic.sent, entries)
    yield from _compare("handled by {} from {}", _HANDLED, traffic.handled, entries)
    for service, count in traffic.waiting.items():
        if count:
            yield f"{service}: {count} messages still in the outbox"
    for (service, state), count in traffic.letters.items():
        if state != "dead":
            yield f"{service}: {count} letters {state}"
    if traffic.dead_letters != poisoned:
        yield f"{traffic.dead_letters} dead letters instead of {poisoned}"


def _compare(
    text: str, rules: Mapping[tuple[str, str], tuple[str, ...]], actual: Counter[tuple[str, str]], entries: Mapping[str, int]
) -> Iterator[str]:
    expected = {pair: sum(entries.get(entry, 0) for entry in kinds) for pair, kinds in rules.items()}
    for pair in sorted(expected.keys() | actual.keys()):
        if actual[pair] != expected.get(pair, 0):
            yield f"{actual[pair]} messages {text.format(*pair)} instead of {expected.get(pair, 0)}"
