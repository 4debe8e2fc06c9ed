"""Orders from a CSV file of the UCI Online Retail layout, dirty rows reported, cancellations matched.

It imports nothing of linkspan: the shop reads its input with it, and so does the reconciliation.
What it decides:

* Money is whole cents. A price of 0, below 0, or with fractions of a cent rejects the row.
* A row without a customer is a guest's order: its money counts as any other. A guest's cancellation cannot be
  matched, because nothing tells whose invoice it cancels.
* Postage, bank charges, discounts and the like (`CHARGES`) are money without goods: paid, never reserved or shipped.
* Equal rows in one invoice are kept: an article scanned twice is bought twice.
* A record is one line of the file, so an unbalanced quote spoils its own line only.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["CHARGES", "COLUMNS", "Invoice", "Line", "OrdersFileError", "RejectedRow", "RowError", "parse_row", "read_invoices"]

COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")
CHARGES = frozenset({"POST", "DOT", "C2", "C3", "M", "D", "S", "B", "BANK CHARGES", "AMAZONFEE", "CRUK"})

_MAX_LINE = 65_536  # bytes; what is longer is cut, and rejected in pieces
_INVOICE = re.compile(r"C?[0-9]{1,12}")
_WHOLE = re.compile(r"-?[0-9]{1,7}(\.0+)?")
_PRICE = re.compile(r"-?[0-9]{1,7}(\.[0-9]{1,18})?")
_CUSTOMER = re.compile(r"([0-9]{1,12})(\.0+)?")


class OrdersFileError(ValueError):
    """The file as a whole cannot be used: absent, cut short, or of another layout."""


class RowError(ValueError):
    """One row cannot be used; the text is the reason. It never quotes the row, which may hold personal data."""


@dataclass(frozen=True, slots=True)
class Line:
    """So many pieces of one article, at a price of `cents` each."""

    sku: str
    pieces: int
    cents: int

    @property
    def is_charge(self) -> bool:
        """Tell whether this is money without goods."""
        return self.sku in CHARGES

    @property
    def total(self) -> int:
        """Cents of all pieces."""
        return self.pieces * self.cents


@dataclass(frozen=True, slots=True)
class Row:
    """One accepted row of the file; `line.pieces` is positive for sales and for cancellations."""

    invoice: str
    customer: str
    at: datetime
    line: Line


@dataclass(slots=True)
class Invoice:
    """The lines that share an invoice number: an order, or a cancellation (number begins with C)."""

    number: str
    customer: str
    at: datetime
    lines: list[Line] = field(default_factory=list[Line])

    @property
    def is_cancellation(self) -> bool:
        """Tell whether goods come back instead of going out."""
        return self.number.startswith("C")


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that is left out: its line number in the file (the header is 1) and why."""

    number: int
    reason: str


def read_invoices(path: Path) -> tuple[list[Invoice], list[RejectedRow]]:
    """Read a `.csv` or `.csv.gz`: invoices by date (then by place in the file), and the rows left out.

    Raises `OrdersFileError` when there is no such file, when it lacks a column, or when it ends within its compression.
    """
    invoices: dict[str, Invoice] = {}
    rejected: list[RejectedRow] = []
    try:
        with _open(path) as file:
            for number, columns in _records(file, path):
                try:
                    _add(invoices, parse_row(columns))
                except RowError as error:
                    rejected.append(RejectedRow(number, str(error)))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise OrdersFileError(
            f"Reading '{path.name}' failed within its compression: fetch the file again, it is cut short or damaged."
        ) from error
    except OSError as error:
        raise OrdersFileError(f"Reading orders from '{path}' failed: {error.strerror}; give the path of a CSV file.") from error
    return sorted(invoices.values(), key=lambda invoice: invoice.at), rejected


def parse_row(columns: Mapping[str, str]) -> Row:
    """Check one row; raises `RowError` with the first reason to leave it out."""
    if not columns:
        raise RowError("the row has not as many columns as the header")
    invoice, sku = columns["InvoiceNo"].strip().upper(), columns["StockCode"].strip().upper()
    if not _INVOICE.fullmatch(invoice):
        raise RowError("the invoice number is not digits, with or without a leading C")
    if not sku:
        raise RowError("the stock code is missing")
    if not sku.isprintable() or len(sku) > 40:
        raise RowError("the stock code is not readable")
    cancellation = invoice.startswith("C")
    pieces, cents = _pieces(columns["Quantity"].strip(), cancellation=cancellation), _cents(columns["UnitPrice"].strip())
    customer = columns["CustomerID"].strip()
    known = _CUSTOMER.fullmatch(customer)
    if customer and not known:
        raise RowError("the customer is not a number")
    return Row(invoice, known[1] if known else "", _moment(columns["InvoiceDate"].strip()), Line(sku, pieces, cents))


def _pieces(text: str, *, cancellation: bool) -> int:
    if not _WHOLE.fullmatch(text):
        raise RowError("the quantity is not a whole number")
    quantity = int(text.partition(".")[0])
    if quantity == 0:
        raise RowError("the quantity is 0")
    if quantity < 0 and not cancellation:
        raise RowError("the quantity is below 0, and the invoice is not a cancellation")
    if quantity > 0 and cancellation:
        raise RowError("the quantity is above 0, and the invoice is a cancellation")
    return abs(quantity)


def _cents(text: str) -> int:
    if not _PRICE.fullmatch(text):
        raise RowError("the price is not a number")
    price = Decimal(text) * 100
    if price == 0:
        raise RowError("the price is 0")
    if price < 0:
        raise RowError("the price is below 0")
    if price != int(price):
        raise RowError("the price has fractions of a cent")
    return int(price)


def _moment(text: str) -> datetime:
    """Read ISO 8601 (UTC unless it says otherwise), or what the original spreadsheet shows: `12/1/2010 8:26`."""
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        try:
            return datetime.strptime(text, "%m/%d/%Y %H:%M").replace(tzinfo=UTC)
        except ValueError:
            raise RowError("the invoice date is not a date") from None


def _add(invoices: dict[str, Invoice], row: Row) -> None:
    invoice = invoices.setdefault(row.invoice, Invoice(row.invoice, row.customer, row.at))
    if invoice.customer != row.customer:
        raise RowError("the customer is not the one of the invoice's first row")
    invoice.lines.append(row.line)


def _open(path: Path) -> gzip.GzipFile | BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")


def _records(file: gzip.GzipFile | BinaryIO, path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and named columns of every row, after checking the header; columns are empty where the width is wrong."""
    lines = enumerate(iter(lambda: file.readline(_MAX_LINE), b""), start=1)
    _, first = next(lines, (1, b""))
    header = [name.strip() for name in _split(_decode(first))]
    if missing := [name for name in COLUMNS if name not in header]:
        raise OrdersFileError(f"'{path.name}' lacks the columns {', '.join(missing)}: its first line must name {', '.join(COLUMNS)}.")
    for number, raw in lines:
        fields = _split(_decode(raw))
        if fields:
            yield number, dict(zip(header, fields, strict=True)) if len(fields) == len(header) else {}


def _decode(raw: bytes) -> str:
    """Read UTF-8, or else the Windows code page that the data set was first published in."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def _split(text: str) -> list[str]:
    try:
        return [name for row in csv.reader([text.rstrip("\r\n")]) for name in row]
    except csv.Error:
        return [""]
