"""The shop's services in one process, on the memory broker and real databases."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import pytest

from examples.shop.app import app as shop
from examples.shop.contracts.orders_v1 import Line
from examples.shop.contracts.storefront_v1 import Placed, PlaceOrder, ReturnGoods, Storefront, Track
from examples.shop.demo.feed import Customers
from examples.shop.order_book import OrderBook, read_orders
from examples.shop.reconcile import SERVICES, Reconciliation, reconcile
from examples.shop.seeded import write_seeded
from examples.shop.services.payments import is_declined
from linkspan import App, Client, Code, Error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TEA = Line(sku="TEA", pieces=2, cents=450)
BAD_ORDERS = [
    PlaceOrder(order_id="1", lines=[]),
    PlaceOrder(order_id="1", lines=[Line(sku="TEA", pieces=0, cents=450)]),
    PlaceOrder(order_id="1", lines=[Line(sku="TEA", pieces=1, cents=-1)]),
    PlaceOrder(order_id="", lines=[TEA]),
]


@asynccontextmanager
async def open_shop(folder: Path, *only: str) -> AsyncIterator[Client]:
    app = App(*shop.services, broker="memory://", data=folder, http="127.0.0.1:0")
    await app.start(only)
    try:
        async with app.client("customer") as client:
            yield client
    finally:
        await app.aclose()


async def settled(book: OrderBook, folder: Path) -> Reconciliation:
    async with asyncio.timeout(30):
        while not (result := reconcile(book, folder)).reconciled:  # noqa: ASYNC110 - the databases ring no bell
            await asyncio.sleep(0.05)
    return result


async def no_pause(placed: int) -> None:
    assert placed > 0


def rows(folder: Path, service: str, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{folder / service}.db?mode=ro", uri=True)) as database:
        return database.execute(sql).fetchall()


async def test_seeded_orders_are_settled_or_given_back_and_everything_adds_up(tmp_path: Path) -> None:
    write_seeded(tmp_path / "orders.csv", seed=11, count=60)
    book = read_orders(tmp_path / "orders.csv")

    async with open_shop(tmp_path) as client:
        await Customers(client).place(book, no_pause)
        result = await settled(book, tmp_path)

    declined = {order.number for order in book.orders if is_declined(order.number)}
    assert (result.orders, result.declined, result.settled) == (60, len(declined), 60 - len(declined))
    assert declined
    assert result.refunded + result.refused_refunds == sum(len(refund.lines) for refund in book.refunds)
    assert result.refused_refunds == sum(len(refund.lines) for refund in book.refunds if refund.order_id in declined)


async def test_the_same_number_twice_is_one_order(tmp_path: Path) -> None:
    order = PlaceOrder(order_id="900001", lines=[TEA])
    async with open_shop(tmp_path) as client:
        assert await client.call(Storefront.place_order, order) == Placed(order_id="900001", pieces=2, cents=900)
        with pytest.raises(Error) as caught:
            await client.call(Storefront.place_order, order)

    assert caught.value.code is Code.ALREADY_EXISTS
    assert rows(tmp_path, "storefront", "select count(*) from checkouts") == [(1,)]


@pytest.mark.parametrize("order", BAD_ORDERS, ids=["no lines", "no pieces", "negative price", "no number"])
async def test_a_bad_order_is_refused_and_leaves_nothing(tmp_path: Path, order: PlaceOrder) -> None:
    async with open_shop(tmp_path, "storefront") as client:
        with pytest.raises(Error) as caught:
            await client.call(Storefront.place_order, order)

    assert caught.value.code is Code.INVALID_ARGUMENT
    assert rows(tmp_path, "storefront", "select count(*) from checkouts") == [(0,)]


async def test_no_slow_or_absent_inventory_stops_a_sale(tmp_path: Path) -> None:
    async with open_shop(tmp_path, "storefront", "orders") as client:
        await client.call(Storefront.place_order, PlaceOrder(order_id="900001", lines=[TEA]))

    assert rows(tmp_path, "storefront", "select stock from checkouts") == [("unseen",)]


async def test_only_what_was_bought_comes_back(tmp_path: Path) -> None:
    async with open_shop(tmp_path, "storefront") as client:
        with pytest.raises(Error) as caught:
            await client.call(Storefront.return_goods, ReturnGoods(refund_id="C1-1", order_id="1", lines=[TEA]))

    assert caught.value.code is Code.NOT_FOUND


async def test_an_order_can_be_tracked_to_its_end(tmp_path: Path) -> None:
    async with open_shop(tmp_path) as client:
        with pytest.raises(Error) as caught:
            await client.call(Storefront.track, Track(order_id="900001"))
        await client.call(Storefront.place_order, PlaceOrder(order_id="900001", lines=[TEA]))
        async with asyncio.timeout(20):
            while await status(client) != "settled":  # noqa: ASYNC110 - customers look again and again
                await asyncio.sleep(0.02)

    assert caught.value.code is Code.NOT_FOUND


async def status(client: Client) -> str:
    try:
        return (await client.call(Storefront.track, Track(order_id="900001"))).status
    except Error as error:
        return error.code.value


def test_every_service_has_tables_of_its_own() -> None:
    assert tuple(service.name for service in shop.services) == SERVICES
    assert all(service.scripts() for service in shop.services)
