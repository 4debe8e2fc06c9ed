# Needs Context.submit
from orders_v1 import GetOrder, Orders

from linkspan import Context


async def calls(ctx: Context) -> None:
    await ctx.submit(Orders.get_order, GetOrder(order_id="7"))  # wrong: submit of a query
    await ctx.submit(Orders.place_order, GetOrder(order_id="7"))  # wrong: submit with a wrong request
