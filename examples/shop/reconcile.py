"""Compare what the services did with what was asked of them, to the cent and the piece.

It knows the orders file and the services' tables, and imports nothing of linkspan: it would notice a framework that lies.
Every effect that the file asks for is written down as a row, every row in the databases is read, and the two are
subtracted. Which cards were declined is the one thing taken from a database (payments), since only that service knows.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from examples.shop.order_book import cents_of, pieces_of
from examples.shop.reconcile_messages import check_traffic, read_traffic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from examples.shop.order_book import OrderBook, Refund
    from examples.shop.orders_csv import Invoice, Line

__all__ = ["SERVICES", "Effect", "Reconciliation", "reconcile"]

SERVICES = ("storefront", "orders", "inventory", "payments", "shipping", "notifications")

_LEDGERS: dict[str, tuple[str, ...]] = {
    "storefront": (
        "select 'checkout', order_id, '', pieces, cents from checkouts",
        "select 'return', refund_id, '', pieces, cents from returns",
    ),
    "orders": ("select step, ref, '', pieces, cents from log",),
    "inventory": ("select kind, ref, sku, pieces, 0 from movements",),
    "payments": ("select kind, ref, '', 0, cents from payments",),
    "shipping": ("select 'parcel', order_id, '', pieces, 0 from parcels",),
    "notifications": ("select kind, ref, '', 0, 0 from mails",),
}


class Effect(NamedTuple):
    """One row that something happened: where, what, to which order or refund, how much."""

    service: str
    kind: str
    ref: str
    sku: str = ""
    pieces: int = 0
    cents: int = 0


@dataclass(slots=True)
class Reconciliation:
    """The result: counts of the business, and what does not add up. Refunds are counted in lines, as the file has them."""

    orders: int = 0
    settled: int = 0
    declined: int = 0
    refunded: int = 0
    refused_refunds: int = 0
    unmatched_refunds: int = 0
    rejected_rows: int = 0
    charged_cents: int = 0
    refunded_cents: int = 0
    shipped_pieces: int = 0
    messages: int = 0
    deliveries: int = 0
    dead_letters: int = 0
    lost: int = 0
    double_effects: int = 0
    differences: list[str] = field(default_factory=list[str])

    @property
    def reconciled(self) -> bool:
        """Tell whether everything adds up."""
        return not (self.lost or self.double_effects or self.differences)


def reconcile(book: OrderBook, folder: Path, poisoned: int = 0) -> Reconciliation:
    """Compare the orders file with the databases `<folder>/<service>.db` of services that have stopped or are at rest.

    `poisoned` is the number of messages that were made undecodable on purpose, and have to be dead letters now.
    """
    databases = {name: folder / f"{name}.db" for name in SERVICES}
    actual = Counter(effect for name, path in databases.items() for effect in _read_effects(name, path))
    charged = {effect.ref for effect in actual if effect[:2] == ("payments", "charged")}
    declined = {effect.ref for effect in actual if effect[:2] == ("payments", "declined")}
    expected = Counter(_expected(book, charged, declined))
    result = _business(book, charged, declined, actual)
    _subtract(result, expected, actual)
    result.differences += _state(databases)
    traffic = read_traffic(databases)
    result.messages, result.deliveries, result.dead_letters = traffic.messages, traffic.deliveries, traffic.dead_letters
    entries: Counter[str] = Counter()
    for effect, times in expected.items():
        entries[f"{effect.service}.{effect.kind}"] += times
    result.differences += check_traffic(traffic, entries, poisoned)
    return result


def _read_effects(service: str, path: Path) -> Iterator[Effect]:
    for sql in _LEDGERS[service]:
        for row in _rows(path, sql):
            yield Effect(service, *row)


def _rows(path: Path, sql: str) -> list[tuple[str, str, str, int, int]]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(sql).fetchall()


def _business(book: OrderBook, charged: set[str], declined: set[str], actual: Counter[Effect]) -> Reconciliation:
    ids = {order.number for order in book.orders}
    paid_back = {effect.ref for effect in actual if effect.service == "payments" and effect.kind == "refunded"}
    refused = {effect.ref for effect in actual if effect.service == "orders" and effect.kind == "refund_refused"}
    return Reconciliation(
        orders=len(ids),
        settled=len(ids & charged),
        declined=len(ids & declined),
        refunded=sum(len(refund.lines) for refund in book.refunds if refund.refund_id in paid_back),
        refused_refunds=sum(len(refund.lines) for refund in book.refunds if refund.refund_id in refused),
        unmatched_refunds=len(book.unmatched),
        rejected_rows=len(book.rejected),
        charged_cents=sum(effect.cents * times for effect, times in actual.items() if effect[:2] == ("payments", "charged")),
        refunded_cents=sum(effect.cents * times for effect, times in actual.items() if effect[:2] == ("payments", "refunded")),
        shipped_pieces=sum(effect.pieces * times for effect, times in actual.items() if effect.service == "shipping"),
    )


# --- what must have happened -------------------------------------------------------------------------


def _expected(book: OrderBook, charged: set[str], declined: set[str]) -> Iterator[Effect]:
    for order in book.orders:
        yield from _of_order(order)
        yield from _of_declined(order) if order.number in declined - charged else _of_settled(order)
    for refund in book.refunds:
        yield from _of_refund(refund, paid=refund.order_id in charged or refund.order_id not in declined)


def _of_order(order: Invoice) -> Iterator[Effect]:
    ref, pieces, cents = order.number, pieces_of(order.lines), cents_of(order.lines)
    yield Effect("storefront", "checkout", ref, "", pieces, cents)
    yield Effect("orders", "placed", ref, "", pieces, cents)
    yield Effect("orders", "reserved", ref, "", pieces, cents)
    yield from _moved("reserve", ref, order.lines)


def _of_settled(order: Invoice) -> Iterator[Effect]:
    ref, pieces, cents = order.number, pieces_of(order.lines), cents_of(order.lines)
    yield Effect("payments", "charged", ref, cents=cents)
    yield Effect("orders", "settled", ref, "", pieces, cents)
    yield Effect("shipping", "parcel", ref, pieces=pieces)
    yield Effect("orders", "shipped", ref, "", pieces, cents)
    yield Effect("notifications", "receipt", ref)
    yield Effect("notifications", "shipped", ref)


def _of_declined(order: Invoice) -> Iterator[Effect]:
    ref, pieces, cents = order.number, pieces_of(order.lines), cents_of(order.lines)
    yield Effect("payments", "declined", ref, cents=cents)
    yield from _moved("release", ref, order.lines)
    yield Effect("orders", "declined", ref, "", pieces, cents)
    yield Effect("orders", "released", ref, "", pieces, cents)
    yield Effect("notifications", "declined", ref)


def _of_refund(refund: Refund, *, paid: bool) -> Iterator[Effect]:
    ref, pieces, cents = refund.refund_id, pieces_of(refund.lines), cents_of(refund.lines)
    yield Effect("storefront", "return", ref, "", pieces, cents)
    yield Effect("orders", "refund_requested", ref, "", pieces, cents)
    if not paid:
        yield Effect("orders", "refund_refused", ref, "", pieces, cents)
        yield Effect("notifications", "refund_refused", ref)
        return
    yield Effect("payments", "refunded", ref, cents=cents)
    yield Effect("orders", "refunded", ref, "", pieces, cents)
    yield from _moved("return", ref, refund.lines)
    yield Effect("notifications", "refunded", ref)


def _moved(kind: str, ref: str, lines: Iterable[Line]) -> Iterator[Effect]:
    return (Effect("inventory", kind, ref, line.sku, line.pieces) for line in lines if not line.is_charge)


# --- what does not add up ----------------------------------------------------------------------------


def _subtract(result: Reconciliation, expected: Counter[Effect], actual: Counter[Effect]) -> None:
    """Count effects that are missing as lost, and those too many as double; a pair of both is one with a wrong amount."""
    missing, extra = _by_name(expected - actual), _by_name(actual - expected)
    for name in sorted(missing.keys() | extra.keys()):
        pairs = min(missing[name], extra[name])
        result.lost += missing[name] - pairs
        result.double_effects += extra[name] - pairs
        where = f"{name[1]} {name[2]} in {name[0]}"
        if pairs:
            result.differences.append(f"{where}: {pairs} with a wrong amount")
        if missing[name] > pairs:
            result.differences.append(f"{where}: {missing[name] - pairs} missing")
        if extra[name] > pairs:
            result.differences.append(f"{where}: {extra[name] - pairs} too many")


def _by_name(effects: Counter[Effect]) -> defaultdict[tuple[str, str, str], int]:
    names: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    for effect, times in effects.items():
        names[effect[:3]] += times
    return names


def _state(databases: Mapping[str, Path]) -> Iterator[str]:
    """Check what the ledgers do not show: states that must follow from them, and messages still under way."""
    for status, count in _pairs(databases["orders"], "select status, count(*) from orders group by 1"):
        if status not in {"settled", "declined"}:
            yield f"orders: {count} still {status}"
    for status, count in _pairs(databases["orders"], "select status, count(*) from refunds group by 1"):
        if status not in {"refunded", "refused"}:
            yield f"orders: {count} refunds still {status}"
    sql = """select s.sku, s.on_hand - s.opening - coalesce(sum(case m.kind when 'reserve' then -m.pieces else m.pieces end), 0) as gap
             from stock s left join movements m using (sku) group by s.sku having gap <> 0"""
    for sku, gap in _pairs(databases["inventory"], sql):
        yield f"inventory: {sku} has {gap:+d} pieces against its movements"


def _pairs(path: Path, sql: str) -> list[tuple[str, int]]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(sql).fetchall()
