"""The reconciliation accepts a shop that did everything right, and no shop that did one thing wrong."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

import examples.shop
from examples.shop.order_book import OrderBook, cents_of, match_cancellations, pieces_of
from examples.shop.orders_csv import Invoice, Line, RejectedRow
from examples.shop.reconcile import SERVICES, reconcile

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA = Path(examples.shop.__file__).parent / "schema"
START = datetime(2010, 12, 1, tzinfo=UTC)
MUG, CUP, POSTAGE = Line("MUG", 4, 250), Line("CUP", 1, 99), Line("POST", 1, 1800)
DECLINED = {"3"}
LINKSPAN = """
create table linkspan_sequence (topic text, key text, last integer, primary key (topic, key));
create table linkspan_outbox (position integer primary key);
create table linkspan_inbox (position integer primary key, source text);
create table linkspan_letter (position integer primary key, state text);
"""
LEDGERS = ["storefront.checkouts", "storefront.returns", "orders.log", "inventory.movements", "payments.payments"]
LEDGERS += ["shipping.parcels", "notifications.mails"]


def book() -> OrderBook:
    def invoice(number: str, *lines: Line) -> Invoice:
        return Invoice(number, "17850", START + timedelta(minutes=int(number.strip("C"))), list(lines))

    sold = [invoice("1", MUG, CUP, CUP, POSTAGE), invoice("2", MUG, MUG), invoice("3", CUP)]
    refunds, unmatched = match_cancellations([*sold, invoice("C4", CUP, MUG), invoice("C5", MUG), invoice("C6", Line("HAT", 1, 5))])
    return OrderBook(tuple(sold), tuple(refunds), tuple(unmatched), (RejectedRow(9, "the price is 0"),))


class Shop:
    """Databases as a shop without faults leaves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for service in SERVICES:
            with self.database(service) as database:
                database.executescript((SCHEMA / service / "0001_tables.sql").read_text())
                database.executescript(LINKSPAN)

    def database(self, service: str) -> closing[sqlite3.Connection]:
        database = sqlite3.connect(self.folder / f"{service}.db", isolation_level=None)
        database.execute("pragma synchronous = off")
        return closing(database)

    def add(self, table: str, columns: str, *values: object) -> None:
        service, name = table.split(".")
        with self.database(service) as database:
            database.execute(f"insert into {name} ({columns}, at) values ({', '.join('?' * len(values))}, 0)", values)

    def tell(self, key: str, sender: str, topic: str, *receivers: str) -> None:
        with self.database(sender) as database:
            upsert = "insert into linkspan_sequence values (?, ?, 1) on conflict (topic, key) do update set last = last + 1"
            database.execute(upsert, [f"shop.{topic.replace('.', '.v1.')}", key])
        for receiver in receivers:
            with self.database(receiver) as database:
                database.execute("insert into linkspan_inbox (source) values (?)", [f"{receiver}</{sender}"])

    def log(self, step: str, ref: str, lines: Iterable[Line]) -> None:
        self.add("orders.log", "step, ref, pieces, cents", step, ref, pieces_of(lines), cents_of(lines))

    def move(self, kind: str, ref: str, lines: Iterable[Line]) -> None:
        for line in lines:
            if not line.is_charge:
                sign = -1 if kind == "reserve" else 1
                with self.database("inventory") as database:
                    database.execute("insert or ignore into stock values (?, 1000, 1000)", [line.sku])
                    database.execute("update stock set on_hand = on_hand + ? where sku = ?", [sign * line.pieces, line.sku])
                self.add("inventory.movements", "kind, ref, sku, pieces", kind, ref, line.sku, line.pieces)

    def mail(self, kind: str, ref: str) -> None:
        self.add("notifications.mails", "kind, ref", kind, ref)

    def sell(self, order: Invoice) -> None:
        ref, lines, declined = order.number, order.lines, order.number in DECLINED
        columns = "order_id, customer, pieces, cents"
        self.add("storefront.checkouts", f"{columns}, stock", ref, order.customer, pieces_of(lines), cents_of(lines), "seen")
        with self.database("orders") as database:
            row = [ref, order.customer, pieces_of(lines), cents_of(lines), "declined" if declined else "settled"]
            database.execute("insert into orders values (?, ?, ?, ?, ?)", row)
        self.move("reserve", ref, lines)
        self.add("payments.payments", "kind, ref, cents", "declined" if declined else "charged", ref, cents_of(lines))
        for step in ("placed", "reserved", *(("declined", "released") if declined else ("settled", "shipped"))):
            self.log(step, ref, lines)
        self.tell(ref, "storefront", "orders.commands", "orders")
        self.tell(ref, "orders", "orders.events", "inventory")
        self.tell(ref, "inventory", "inventory.events", "orders")
        self.tell(ref, "orders", "payments.commands", "payments")
        self.tell(ref, "payments", "payments.events", "orders")
        if declined:
            self.move("release", ref, lines)
            self.mail("declined", ref)
            self.tell(ref, "orders", "inventory.commands", "inventory")
            self.tell(ref, "inventory", "inventory.events", "orders")
            self.tell(ref, "orders", "orders.events", "notifications")
        else:
            self.tell(ref, "orders", "orders.events", "shipping", "notifications")
            self.tell(ref, "shipping", "shipping.events", "orders", "notifications")
            self.add("shipping.parcels", "order_id, pieces", ref, pieces_of(lines))
            self.mail("receipt", ref)
            self.mail("shipped", ref)

    def take_back(self, ref: str, order_id: str, lines: tuple[Line, ...]) -> None:
        refused = order_id in DECLINED
        status = "refused" if refused else "refunded"
        self.add("storefront.returns", "refund_id, order_id, pieces, cents", ref, order_id, pieces_of(lines), cents_of(lines))
        with self.database("orders") as database:
            database.execute("insert into refunds values (?, ?, ?, ?, x'', ?)", [ref, order_id, pieces_of(lines), cents_of(lines), status])
        self.log("refund_requested", ref, lines)
        self.log("refund_refused" if refused else "refunded", ref, lines)
        self.mail("refund_refused" if refused else "refunded", ref)
        self.tell(order_id, "storefront", "orders.commands", "orders")
        if refused:
            self.tell(order_id, "orders", "orders.events", "notifications")
        else:
            self.tell(order_id, "orders", "payments.commands", "payments")
            self.tell(order_id, "payments", "payments.events", "orders")
            self.tell(order_id, "orders", "orders.events", "notifications", "inventory")
            self.add("payments.payments", "kind, ref, cents", "refunded", ref, cents_of(lines))
            self.move("return", ref, lines)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    for order in book().orders:
        shop.sell(order)
    for refund in book().refunds:
        shop.take_back(refund.refund_id, refund.order_id, refund.lines)
    return shop


def change(shop: Shop, service: str, sql: str) -> None:
    with shop.database(service) as database:
        assert database.execute(sql).rowcount == 1


def test_a_shop_without_faults_is_reconciled(shop: Shop) -> None:
    result = reconcile(book(), shop.folder)

    assert result.differences == []
    assert result.reconciled
    assert (result.orders, result.settled, result.declined) == (3, 2, 1)
    assert (result.refunded, result.refused_refunds, result.unmatched_refunds, result.rejected_rows) == (2, 1, 1, 1)
    assert (result.charged_cents, result.refunded_cents, result.shipped_pieces) == (1000 + 198 + 1800 + 2000, 2000, 6 + 8)


@pytest.mark.parametrize("ledger", LEDGERS)
def test_any_missing_row_is_lost(shop: Shop, ledger: str) -> None:
    service, table = ledger.split(".")
    with shop.database(service) as database:
        rows = [row for (row,) in database.execute(f"select rowid from {table}")]
    for row in rows:
        with shop.database(service) as database:
            before = database.execute(f"select * from {table} where rowid = ?", [row]).fetchone()
            database.execute(f"delete from {table} where rowid = ?", [row])
            result = reconcile(book(), shop.folder)
            database.execute(f"insert into {table} values ({', '.join('?' * len(before))})", before)
        assert result.lost >= 1
        assert not result.reconciled
    assert reconcile(book(), shop.folder).reconciled


@pytest.mark.parametrize(
    ("ledger", "columns"),
    [
        ("orders.log", "step, ref, pieces, cents, at"),
        ("inventory.movements", "kind, ref, sku, pieces, at"),
        ("payments.payments", "kind, ref, cents, at"),
        ("shipping.parcels", "order_id, pieces, at"),
        ("notifications.mails", "kind, ref, at"),
    ],
)
def test_any_row_written_twice_is_a_double_effect(shop: Shop, ledger: str, columns: str) -> None:
    service, table = ledger.split(".")
    change(shop, service, f"insert into {table} ({columns}) select {columns} from {table} order by id limit 1")

    result = reconcile(book(), shop.folder)

    assert (result.lost, result.double_effects) == (0, 1)
    assert not result.reconciled


@pytest.mark.parametrize(
    ("service", "sql"),
    [
        ("payments", "update payments set cents = cents + 1 where id = 1"),
        ("payments", "update payments set cents = cents - 1 where ref = 'C5-2'"),
        ("inventory", "update movements set pieces = pieces - 1 where id = 2"),
        ("shipping", "update parcels set pieces = pieces + 1 where id = 1"),
        ("orders", "update log set cents = cents + 1 where id = 1"),
    ],
)
def test_one_cent_or_piece_too_many_is_found(shop: Shop, service: str, sql: str) -> None:
    change(shop, service, sql)

    result = reconcile(book(), shop.folder)

    assert (result.lost, result.double_effects) == (0, 0)
    assert "with a wrong amount" in result.differences[0]


@pytest.mark.parametrize(
    ("service", "sql", "message"),
    [
        ("orders", "update orders set status = 'reserved' where order_id = '1'", "1 still reserved"),
        ("orders", "update refunds set status = 'waiting' where refund_id = 'C5-2'", "1 refunds still waiting"),
        ("inventory", "update stock set on_hand = on_hand + 1 where sku = 'MUG'", "MUG has \\+1 pieces"),
    ],
)
def test_a_state_that_does_not_follow_from_the_ledgers_is_found(shop: Shop, service: str, sql: str, message: str) -> None:
    change(shop, service, sql)

    result = reconcile(book(), shop.folder)

    assert not result.reconciled
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(result.differences)


def test_a_payment_nobody_asked_for_is_found(shop: Shop) -> None:
    shop.add("payments.payments", "kind, ref, cents", "charged", "99", 500)

    assert reconcile(book(), shop.folder).double_effects == 1


def test_a_declined_order_that_keeps_its_goods_is_found(shop: Shop) -> None:
    with shop.database("inventory") as database:
        database.execute("delete from movements where kind = 'release'")

    result = reconcile(book(), shop.folder)

    assert result.lost == 1
    assert "release 3 in inventory: 1 missing" in result.differences


def test_a_service_without_a_database_has_lost_everything(shop: Shop) -> None:
    (shop.folder / "shipping.db").unlink()

    assert reconcile(book(), shop.folder).lost == 2


@pytest.mark.parametrize(
    ("service", "sql", "message"),
    [
        ("orders", "insert into linkspan_outbox values (1)", "orders: 1 messages still in the outbox"),
        ("orders", "insert into linkspan_letter values (1, 'parked')", "orders: 1 letters parked"),
        ("payments", "insert into linkspan_letter values (1, 'dead')", "1 dead letters instead of 0"),
        ("payments", "delete from linkspan_inbox where position = 1", "4 messages handled by payments from orders instead of 5"),
        (
            "shipping",
            "insert into linkspan_inbox (source) values ('shipping</orders')",
            "3 messages handled by shipping from orders instead of 2",
        ),
        (
            "shipping",
            "update linkspan_sequence set last = 2 where key = '1'",
            "3 messages sent by shipping to shop.shipping.v1.events instead of 2",
        ),
    ],
)
def test_messages_that_do_not_fit_the_ledgers_are_found(shop: Shop, service: str, sql: str, message: str) -> None:
    change(shop, service, sql)

    result = reconcile(book(), shop.folder)

    assert not result.reconciled
    assert result.differences == [message]


def test_poison_must_have_become_a_dead_letter(shop: Shop) -> None:
    assert not reconcile(book(), shop.folder, poisoned=1).reconciled

    change(shop, "payments", "insert into linkspan_letter values (1, 'dead')")

    assert reconcile(book(), shop.folder, poisoned=1).reconciled


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_no_random_damage_goes_unseen(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    shop = Shop(tmp_path_factory.mktemp("shop"))
    for order in book().orders:
        shop.sell(order)
    for refund in book().refunds:
        shop.take_back(refund.refund_id, refund.order_id, refund.lines)
    ledger = data.draw(st.sampled_from(LEDGERS[2:]))
    service, table = ledger.split(".")
    with shop.database(service) as database:
        rows = [row for (row,) in database.execute(f"select id from {table}")]
        row = data.draw(st.sampled_from(rows))
        column = "order_id" if table == "parcels" else "ref"
        database.execute(f"update {table} set {column} = {column} || ? where id = ?", [data.draw(st.sampled_from(["x", "0"])), row])

    assert not reconcile(book(), shop.folder).reconciled
