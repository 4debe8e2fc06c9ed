# Needs Context.stream
from orders_v1 import GetOrder, Orders

from linkspan import Context


async def calls(ctx: Context) -> None:
    ctx.stream(Orders.get_order, GetOrder(order_id="7"))  # wrong: stream of a unary operation
    ctx.stream(Orders.watch, GetOrder(order_id="7"))  # wrong: stream with a wrong request
