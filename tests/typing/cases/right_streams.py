# Needs Context.stream
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import assert_type

from orders_v1 import Order, Orders, PlaceOrder, Status, WatchOrders

from linkspan import Client, Context, Service

orders = Service("orders", Orders)


@orders.handles(Orders.watch)
async def watch(ctx: Context, request: WatchOrders) -> AsyncIterator[Order]:
    yield Order(order_id=request.customer_id, status=Status.PLACED)


@orders.handles(Orders.import_orders)
async def import_orders(ctx: Context, requests: AsyncIterator[PlaceOrder]) -> Order:
    async for request in requests:
        assert_type(request, PlaceOrder)
    return Order(order_id="7", status=Status.PLACED)


@orders.handles(Orders.chat)
async def chat(ctx: Context, requests: AsyncIterator[PlaceOrder]) -> AsyncIterator[Order]:
    async for request in requests:
        yield Order(order_id=request.order_id, status=Status.PLACED)


async def placing() -> AsyncIterator[PlaceOrder]:
    yield PlaceOrder(order_id="7")


async def calls(ctx: Context, client: Client) -> None:
    async for order in ctx.stream(Orders.watch, WatchOrders(customer_id="ann")):
        assert_type(order, Order)
    async with aclosing(client.stream(Orders.chat, placing(), timeout=5)) as answers:
        assert_type(await anext(answers), Order)
    assert_type(await ctx.call(Orders.import_orders, placing()), Order)
    assert_type(await client.call(Orders.import_orders, placing(), timeout=5), Order)
