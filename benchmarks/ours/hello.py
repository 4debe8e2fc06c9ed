"""A small app with default settings: its embedded broker, a store, one query. `linkspan run benchmarks.ours.hello:app`."""

from __future__ import annotations

from benchmarks.ours.orders_v1 import GetOrder, Order, Orders
from linkspan import App, Context, Service

orders = Service("orders", Orders)


@orders.handles(Orders.get_order)
async def get_order(ctx: Context, request: GetOrder) -> Order:
    """Answer from memory, after looking at what every call carries."""
    assert ctx.trace
    assert ctx.time_left > 0
    return Order(order_id=request.order_id, note=request.note, cents=4_210)


app = App(orders)
