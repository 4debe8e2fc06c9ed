# Needs Context.stream
from collections.abc import AsyncIterator

from orders_v1 import GetOrder, Orders, PlaceOrder, WatchOrders

from linkspan import Client, Context


async def asking() -> AsyncIterator[GetOrder]:
    yield GetOrder(order_id="7")


async def placing() -> AsyncIterator[PlaceOrder]:
    yield PlaceOrder(order_id="7")


async def calls(ctx: Context, client: Client) -> None:
    ctx.stream(Orders.get_order, GetOrder(order_id="7"))  # wrong: stream of a unary operation
    ctx.stream(Orders.watch, GetOrder(order_id="7"))  # wrong: stream with a wrong request
    ctx.stream(Orders.import_orders, placing())  # wrong: stream of an operation with one answer
    ctx.stream(Orders.chat, PlaceOrder(order_id="7"))  # wrong: bidirectional stream of one request
    client.stream(Orders.chat, asking())  # wrong: bidirectional stream of wrong requests
    await ctx.call(Orders.import_orders, PlaceOrder(order_id="7"))  # wrong: client stream of one request
    await client.call(Orders.import_orders, asking())  # wrong: client stream of wrong requests
    await client.call(Orders.chat, placing())  # wrong: call of a bidirectional stream
    await ctx.send(Orders.chat, PlaceOrder(order_id="7"))  # wrong: send of a stream
    ctx.stream(Orders.watch, WatchOrders(customer_id="ann"), via="durable")  # wrong: stream over the durable path
