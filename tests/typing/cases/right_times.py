# Needs Context.cancel, Client.send
from datetime import UTC, datetime, timedelta
from typing import assert_type

from generated_pb import OrderMoved
from generated_v1 import OrderService
from orders_v1 import OrderPlaced, Orders, PlaceOrder

from linkspan import Client, Context

LATER = datetime(2030, 1, 1, tzinfo=UTC)


async def place_order(ctx: Context, request: PlaceOrder) -> None:
    assert_type(await ctx.send(Orders.place_order, request, key="k", after=60), str)
    assert_type(await ctx.send(Orders.place_order, request, at=LATER, expires=timedelta(hours=1)), str)
    sent = await ctx.publish(OrderPlaced(order_id=request.order_id), after=timedelta(minutes=5), expires=LATER)
    assert_type(await ctx.publish(OrderService.order_moved, OrderMoved(order_id="7"), after=1.5, expires=60.0), str)
    assert_type(await ctx.cancel(sent), bool)
    assert_type(await ctx.cancel(Orders.place_order, key="k"), bool)


async def main(client: Client, request: PlaceOrder) -> None:
    assert_type(await client.send(Orders.place_order, request, expires=60), str)
    assert_type(await client.publish(OrderPlaced(order_id="7"), expires=LATER), str)
