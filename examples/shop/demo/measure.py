"""Who waited for whom, read from the services' databases after the run. Every row there says when it was written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from examples.shop.demo.feed import Call

__all__ = ["Edge", "Flow", "direct_edges", "durable_edges", "flow", "quantile"]

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
    """How many a second, from the first second of the run on."""

    what: str
    per_second: tuple[int, ...]


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


def flow(folder: Path, begin: float) -> list[Flow]:
    """Count orders placed, paid and shipped in each second since `begin`."""
    queries = {"placed": _PLACED, "paid": _STEP.format("settled', 'declined"), "shipped": _PARCEL}
    seconds = {what: [int(at / 1e6 - begin) for at in _times(folder, sql).values()] for what, sql in queries.items()}
    length = max((second for values in seconds.values() for second in values), default=0) + 1
    return [Flow(what, tuple(values.count(second) for second in range(length))) for what, values in seconds.items()]


def _times(folder: Path, sql: str) -> dict[str, int]:
    service = sql.partition("{")[2].partition("}")[0]
    with closing(sqlite3.connect(f"file:{folder / service}.db?mode=ro", uri=True)) as database:
        return dict(database.execute(sql.replace(f"{{{service}}}.", "")).fetchall())
