# Needs Context.call, Context.publish, Service.handles
from generated_pb import GetOrderRequest, OrderMoved, OrderReply
from generated_v1 import OrderService

from linkspan import Context, Service

orders = Service("orders", OrderService)


async def calls(ctx: Context) -> None:
    await ctx.call(OrderService.get_order, OrderMoved(order_id="7"))  # wrong: proto-first call with a wrong request
    await ctx.publish(OrderMoved(order_id="7"))  # wrong: proto-first event that is not declared
    await ctx.publish(OrderService.order_moved, OrderReply(order_id="7"))  # wrong: proto-first event with a wrong message


@orders.handles(OrderService.get_order)  # wrong: proto-first handler with a wrong result
async def wrong_handler(ctx: Context, request: GetOrderRequest) -> OrderMoved:
    return OrderMoved(order_id=request.order_id)
