# Needs Context.stream
from typing import assert_type

from orders_v1 import Order, Orders, WatchOrders

from linkspan import Context


async def calls(ctx: Context) -> None:
    async for order in ctx.stream(Orders.watch, WatchOrders(customer_id="ann")):
        assert_type(order, Order)
