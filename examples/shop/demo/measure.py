"""Who waited for whom, read from the services' databases after the run. Every row there says when it was written."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from examples.shop.demo.feed import Call

__all__ = ["SLOTS", "Edge", "Flow", "Timeline", "direct_edges", "durable_edges", "quantile", "timeline", "unseen"]

SLOTS = 72
"""Equal parts that a run is cut into for its picture."""

_PLACED = "select order_id, at from {storefront}.checkouts"
_STEP = "select ref, at from {{orders}}.log where step in ('{}')"
_RESERVED = "select ref, min(at) from {inventory}.movements where kind = 'reserve' group by ref"
_PAID = "select ref, at from {payments}.payments where kind in ('charged', 'declined')"
_PARCEL = "select order_id, at from {shipping}.parcels"
_MAIL = "select ref, at from {{notifications}}.mails where kind = '{}'"

# (from, to, message): when the sender's row was written, when the receiver's.
_EDGES = {
    ("storefront", "orders", "AcceptOrder"): (_PLACED, _STEP.format("placed")),
    ("orders", "inventory", "OrderPlaced"): (_STEP.format("placed"), _RESERVED),
    ("inventory", "orders", "StockReserved"): (_RESERVED, _STEP.format("reserved")),
    ("orders", "payments", "Charge"): (_STEP.format("reserved"), _PAID),
    ("payments", "orders", "PaymentSettled, -Declined"): (_PAID, _STEP.format("settled', 'declined")),
    ("orders", "shipping", "OrderSettled"): (_STEP.format("settled"), _PARCEL),
    ("shipping", "notifications", "ParcelShipped"): (_PARCEL, _MAIL.format("shipped")),
    ("storefront", "shipping", "checkout to parcel, 6 hops"): (_PLACED, _PARCEL),
}


@dataclass(frozen=True, slots=True)
class Edge:
    """One path from one service to another, with the seconds that each message or call took, sorted."""

    path: str
    source: str
    target: str
    what: str
    seconds: tuple[float, ...]
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Flow:
    """One value for each of `SLOTS` equal parts of the run."""

    what: str
    unit: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """What went on when: `begin` in seconds since 1970, `seconds` in all, and the faults with their moments."""

    begin: float
    seconds: float
    flows: tuple[Flow, ...]
    events: tuple[tuple[float, str], ...]

    def slot(self, at: float) -> int:
        """Return the part of the run that a moment lies in."""
        return min(SLOTS - 1, max(0, int((at - self.begin) / self.seconds * SLOTS)))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the sorted values lie (nearest rank); 0.0 without values."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def durable_edges(folder: Path) -> list[Edge]:
    """Measure each message from the handler that sent it to the handler that took it: commit, relay, broker and queue included."""
    found: list[Edge] = []
    for (source, target, what), (before, after) in _EDGES.items():
        started, ended = _times(folder, before), _times(folder, after)
        seconds = sorted((ended[ref] - at) / 1e6 for ref, at in started.items() if ref in ended)
        found.append(Edge("durable", source, target, what, tuple(seconds)))
    return found


def direct_edges(calls: Sequence[Call]) -> list[Edge]:
    """Measure each call as its caller saw it."""
    targets = {"place_order": "storefront", "return_goods": "storefront", "get_order": "orders"}
    found: list[Edge] = []
    for what, target in targets.items():
        own = [call for call in calls if call.what == what]
        failed = sum(call.code not in {"ok", "not_found", "already_exists"} for call in own)
        found.append(Edge("direct", "customer", target, what, tuple(sorted(call.took for call in own)), failed))
    return found


def timeline(folder: Path, calls: Sequence[Call], events: Sequence[tuple[float, str]], begin: float) -> Timeline:
    """Lay orders placed, paid and shipped, and what the customers felt, over the time of the run."""
    queries = {"placed": _PLACED, "paid": _STEP.format("settled', 'declined"), "shipped": _PARCEL}
    moments = {what: [at / 1e6 for at in _times(folder, sql).values()] for what, sql in queries.items()}
    length = max((at for values in moments.values() for at in values), default=begin) - begin + 0.01
    frame = Timeline(begin, length, (), tuple(events))
    flows = [Flow(what, "orders/s", _rates(frame, values)) for what, values in moments.items()]
    felt: list[list[float]] = [[] for _ in range(SLOTS)]
    for call in calls:
        if call.what == "place_order":
            felt[frame.slot(call.at)].append(call.took * 1000)
    flows.append(Flow("checkout", "ms, slowest", tuple(max(values, default=0.0) for values in felt)))
    return Timeline(begin, length, tuple(flows), frame.events)


def _rates(frame: Timeline, moments: Sequence[float]) -> tuple[float, ...]:
    counts = Counter(frame.slot(at) for at in moments)
    return tuple(counts[slot] * SLOTS / frame.seconds for slot in range(SLOTS))


def unseen(folder: Path) -> int:
    """Count the orders that the storefront took without an answer from the inventory."""
    with closing(sqlite3.connect(f"file:{folder / 'storefront.db'}?mode=ro", uri=True)) as database:
        count: int = database.execute("select count(*) from checkouts where stock = 'unseen'").fetchone()[0]
    return count


def _times(folder: Path, sql: str) -> dict[str, int]:
    service = sql.partition("{")[2].partition("}")[0]
    with closing(sqlite3.connect(f"file:{folder / service}.db?mode=ro", uri=True)) as database:
        return dict(database.execute(sql.replace(f"{{{service}}}.", "")).fetchall())
