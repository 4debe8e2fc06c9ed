"""The shop's input: what is read, what is left out and why, and that nothing vanishes."""

from __future__ import annotations

import csv
import gzip
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from examples.shop.orders_csv import COLUMNS, Invoice, Line, OrdersFileError, RowError, parse_row, read_invoices

if TYPE_CHECKING:
    from pathlib import Path

GOOD = dict(
    zip(COLUMNS, ("536365", "85123A", "WHITE HANGING HEART", "6", "2010-12-01 08:26:00", "2.55", "17850.0", "United Kingdom"), strict=True)
)
HEADER = ",".join(COLUMNS)


def rows_of(*rows: dict[str, str]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write(tmp_path: Path, text: str | bytes, name: str = "orders.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_good_row_becomes_integer_cents_and_pieces() -> None:
    row = parse_row(GOOD)

    assert (row.invoice, row.customer, row.at) == ("536365", "17850", datetime(2010, 12, 1, 8, 26, tzinfo=UTC))
    assert row.line == Line("85123A", 6, 255)
    assert row.line.total == 1530


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("UnitPrice", "0.0", "price is 0"),
        ("UnitPrice", "-2.55", "price is below 0"),
        ("UnitPrice", "0.001", "fractions of a cent"),
        ("UnitPrice", "2,55", "price is not a number"),
        ("UnitPrice", "NaN", "price is not a number"),
        ("UnitPrice", "1e3", "price is not a number"),
        ("UnitPrice", "٣", "price is not a number"),
        ("UnitPrice", "", "price is not a number"),
        ("Quantity", "0", "quantity is 0"),
        ("Quantity", "-6", "below 0"),
        ("Quantity", "1.5", "not a whole number"),
        ("Quantity", "99999999", "not a whole number"),
        ("Quantity", "six", "not a whole number"),
        ("StockCode", "  ", "stock code is missing"),
        ("StockCode", "A\x00B", "stock code is not readable"),
        ("InvoiceNo", "", "invoice number"),
        ("InvoiceNo", "A563185", "invoice number"),
        ("InvoiceDate", "yesterday", "not a date"),
        ("InvoiceDate", "", "not a date"),
        ("InvoiceDate", "0001-01-01T00:00:00+10:00", "not a date"),
        ("CustomerID", "ann@example.org", "customer is not a number"),
    ],
)
def test_a_dirty_row_is_left_out_with_its_reason(column: str, value: str, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        parse_row({**GOOD, column: value})


def test_a_reason_never_quotes_the_row() -> None:
    with pytest.raises(RowError) as caught:
        parse_row({**GOOD, "CustomerID": "ann@example.org"})

    assert "ann" not in str(caught.value)


@pytest.mark.parametrize("text", ["2010-12-01 08:26:00", "2010-12-01T08:26", "12/1/2010 8:26", "2010-12-01T09:26:00+01:00"])
def test_dates_are_read_as_the_data_set_and_as_spreadsheets_write_them(text: str) -> None:
    assert parse_row({**GOOD, "InvoiceDate": text}).at == datetime(2010, 12, 1, 8, 26, tzinfo=UTC)


def test_a_cancellation_counts_its_pieces_upwards() -> None:
    row = parse_row({**GOOD, "InvoiceNo": "C536379", "Quantity": "-2"})

    assert row.line.pieces == 2
    with pytest.raises(RowError, match="above 0"):
        parse_row({**GOOD, "InvoiceNo": "C536379", "Quantity": "2"})


def test_a_missing_customer_is_a_guest_and_not_a_reason_to_refuse_money() -> None:
    assert parse_row({**GOOD, "CustomerID": ""}).customer == ""


def test_charges_are_money_without_goods() -> None:
    assert parse_row({**GOOD, "StockCode": "post"}).line.is_charge
    assert parse_row({**GOOD, "StockCode": "BANK CHARGES"}).line.is_charge
    assert not parse_row({**GOOD, "StockCode": "gift_0001_40"}).line.is_charge


def test_rows_of_a_number_become_one_invoice_and_equal_rows_are_kept(tmp_path: Path) -> None:
    text = rows_of(GOOD, GOOD, {**GOOD, "InvoiceNo": "536366"}, {**GOOD, "StockCode": "71053"})

    invoices, rejected = read_invoices(write(tmp_path, text))

    assert [(i.number, len(i.lines)) for i in invoices] == [("536365", 3), ("536366", 1)]
    assert rejected == []


def test_invoices_come_by_date_whatever_the_file_says(tmp_path: Path) -> None:
    later, earlier = GOOD, {**GOOD, "InvoiceNo": "536300", "InvoiceDate": "2010-11-30 10:00:00"}

    invoices, _ = read_invoices(write(tmp_path, rows_of(later, earlier)))

    assert [i.number for i in invoices] == ["536300", "536365"]


def test_a_second_customer_in_one_invoice_is_left_out(tmp_path: Path) -> None:
    invoices, rejected = read_invoices(write(tmp_path, rows_of(GOOD, {**GOOD, "CustomerID": "12346"})))

    assert [len(i.lines) for i in invoices] == [1]
    assert [(r.number, r.reason) for r in rejected] == [(3, "the customer is not the one of the invoice's first row")]


def test_bad_bytes_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf" + rows_of({**GOOD, "Description": "GIFT £40"}).encode("cp1252")

    invoices, rejected = read_invoices(write(tmp_path, text))

    assert len(invoices) == 1
    assert rejected == []


def test_an_open_quote_spoils_its_own_row_only(tmp_path: Path) -> None:
    broken = '536365,85123A,"OPEN,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom'

    invoices, rejected = read_invoices(write(tmp_path, f"{HEADER}\n{broken}\n{rows_of(GOOD).splitlines()[1]}\n"))

    assert [len(i.lines) for i in invoices] == [1]
    assert [r.number for r in rejected] == [2]


def test_columns_may_come_in_any_order_and_with_others(tmp_path: Path) -> None:
    names = ["Note", *reversed(COLUMNS)]
    text = f"{','.join(names)}\n{','.join({**GOOD, 'Note': 'x'}[name] for name in names)}\n"

    invoices, rejected = read_invoices(write(tmp_path, text))

    assert invoices == [Invoice("536365", "17850", datetime(2010, 12, 1, 8, 26, tzinfo=UTC), [Line("85123A", 6, 255)])]
    assert rejected == []


def test_gzip_is_recognised_by_content(tmp_path: Path) -> None:
    packed = gzip.compress(rows_of(GOOD).encode())

    assert len(read_invoices(write(tmp_path, packed, "orders.csv"))[0]) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lacks the columns InvoiceNo"),
        (b"InvoiceNo,StockCode\n1,2\n", "lacks the columns Description"),
        (gzip.compress(rows_of(GOOD).encode())[:-12], "cut short or damaged"),
        (b"\x1f\x8b" + b"nonsense" * 4, "cut short or damaged"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(OrdersFileError, match=message):
        read_invoices(write(tmp_path, content))


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OrdersFileError, match="give the path"):
        read_invoices(tmp_path / "nowhere.csv")


@given(content=st.lists(st.binary(max_size=80) | st.text(max_size=80).map(str.encode), max_size=12))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_read_or_reported(tmp_path_factory: pytest.TempPathFactory, content: list[bytes]) -> None:
    rows = [chunk.replace(b"\n", b"").replace(b"\r", b"") + b"x" for chunk in content]  # one record a line, never blank
    path = write(tmp_path_factory.mktemp("any"), b"\n".join([HEADER.encode(), *rows]))

    invoices, rejected = read_invoices(path)

    assert sum(len(i.lines) for i in invoices) + len(rejected) == len(rows)


FIELDS = st.one_of(
    st.sampled_from(["", "0", "-1", "3", "2.55", "0.001", "C536379", "536365", "2010-12-01", "NaN", "1" * 400]), st.text(max_size=12)
)


@given(columns=st.fixed_dictionaries(dict.fromkeys(COLUMNS, FIELDS)))
@settings(max_examples=300, deadline=None)
def test_a_row_is_either_accepted_whole_or_refused(columns: dict[str, str]) -> None:
    try:
        row = parse_row(columns)
    except RowError:
        return  # each reason has its own test above
    assert row.line.pieces > 0
    assert row.line.cents > 0
    assert row.line.sku


@given(
    pieces=st.integers(1, 9_999_999),
    cents=st.integers(1, 999_999_999),
    at=st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001 - hypothesis wants naive bounds
    customer=st.integers(0, 10**12 - 1),
)
def test_what_is_written_is_read(pieces: int, cents: int, at: datetime, customer: int) -> None:
    price = f"{cents // 100}.{cents % 100:02}"
    row = parse_row({**GOOD, "Quantity": str(pieces), "UnitPrice": price, "InvoiceDate": at.isoformat(), "CustomerID": f"{customer}.0"})

    assert (row.line.pieces, row.line.cents, row.at, row.customer) == (pieces, cents, at.replace(tzinfo=UTC), str(customer))
