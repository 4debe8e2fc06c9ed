"""What the shop is asked to do, in the order of time: orders, and refunds matched to them.

A cancellation names no original invoice. Each of its lines is matched by customer, stock code and price against the
latest earlier invoice that has so many pieces not yet refunded. A line that finds none is reported and pays nothing:
one line is refunded in full, from one order, or left to a person.

It imports nothing of linkspan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from examples.shop.orders_csv import Invoice, Line, RejectedRow, read_invoices

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

__all__ = ["OrderBook", "Refund", "UnmatchedLine", "cents_of", "match_cancellations", "pieces_of", "read_orders"]


@dataclass(frozen=True, slots=True)
class Refund:
    """Lines of one cancellation that go back to one order; its id names both."""

    refund_id: str
    order_id: str
    customer: str
    at: datetime
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class UnmatchedLine:
    """A cancelled line that no invoice explains, and why."""

    cancellation: str
    line: Line
    reason: str


@dataclass(frozen=True, slots=True)
class OrderBook:
    """A read orders file: orders and refunds by date, and all that was left out."""

    orders: tuple[Invoice, ...]
    refunds: tuple[Refund, ...]
    unmatched: tuple[UnmatchedLine, ...]
    rejected: tuple[RejectedRow, ...]

    def requests(self) -> list[Invoice | Refund]:
        """List orders and refunds by date; on equal dates orders come first."""
        return sorted([*self.orders, *self.refunds], key=lambda item: item.at)


def pieces_of(lines: Iterable[Line]) -> int:
    """Count the goods: charges such as postage are none."""
    return sum(line.pieces for line in lines if not line.is_charge)


def cents_of(lines: Iterable[Line]) -> int:
    """Add up the money, charges included."""
    return sum(line.total for line in lines)


def read_orders(path: Path) -> OrderBook:
    """Read an orders file and match its cancellations; raises `OrdersFileError` when the file cannot be used at all."""
    invoices, rejected = read_invoices(path)
    refunds, unmatched = match_cancellations(invoices)
    orders = tuple(invoice for invoice in invoices if not invoice.is_cancellation)
    return OrderBook(orders, tuple(refunds), tuple(unmatched), tuple(rejected))


def match_cancellations(invoices: Sequence[Invoice]) -> tuple[list[Refund], list[UnmatchedLine]]:
    """Match every line of every cancellation among invoices that come by date."""
    ledger = _Ledger()
    refunds: list[Refund] = []
    unmatched: list[UnmatchedLine] = []
    for invoice in invoices:
        if not invoice.is_cancellation:
            ledger.sell(invoice)
            continue
        found: dict[str, list[Line]] = {}
        for line in invoice.lines:
            try:
                found.setdefault(ledger.take_back(invoice.customer, line), []).append(line)
            except LookupError as error:
                unmatched.append(UnmatchedLine(invoice.number, line, str(error)))
        refunds += [
            Refund(f"{invoice.number}-{order_id}", order_id, invoice.customer, invoice.at, tuple(lines))
            for order_id, lines in found.items()
        ]
    return refunds, unmatched


class _Ledger:
    """Pieces that may still be returned, by customer, article and price, then by invoice in the order of time."""

    def __init__(self) -> None:
        self._left: dict[tuple[str, str, int], dict[str, int]] = {}

    def sell(self, invoice: Invoice) -> None:
        for line in invoice.lines:
            left = self._left.setdefault((invoice.customer, line.sku, line.cents), {})
            left[invoice.number] = left.get(invoice.number, 0) + line.pieces

    def take_back(self, customer: str, line: Line) -> str:
        """Return the number of the invoice that the pieces are taken back from; raises `LookupError` with the reason."""
        if not customer:
            raise LookupError("the cancellation names no customer")
        left = self._left.get((customer, line.sku, line.cents))
        if not left:
            raise LookupError("the customer bought no such article at this price before")
        for number in reversed(left):
            if left[number] >= line.pieces:
                left[number] -= line.pieces
                return number
        raise LookupError("no single invoice has so many pieces not yet refunded")
