# Needs Context.cancel
from datetime import timedelta

from orders_v1 import OrderPlaced, Orders, PlaceOrder

from linkspan import Context


async def calls(ctx: Context, request: PlaceOrder) -> None:
    await ctx.send(Orders.place_order, request, after="5 minutes")  # wrong: a text as a span
    await ctx.send(Orders.place_order, request, at=60.0)  # wrong: seconds as a moment
    await ctx.publish(OrderPlaced(order_id="7"), at=timedelta(minutes=1))  # wrong: a span as a moment
    await ctx.publish(OrderPlaced(order_id="7"), expires="tomorrow")  # wrong: a text as an expiry
    await ctx.cancel(Orders.place_order)  # wrong: a cancelled command without its key
    await ctx.cancel("id", key="k")  # wrong: an id and a key
    await ctx.cancel(Orders.get_order, key="k")  # wrong: a cancelled query
