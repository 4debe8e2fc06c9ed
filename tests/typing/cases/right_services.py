# Needs Context.call, Context.send, Context.publish, Service.handles, Service.on
from typing import assert_type

from generated_pb import GetOrderRequest, OrderMoved, OrderReply
from generated_v1 import OrderService
from orders_v1 import GetOrder, Order, OrderPlaced, Orders, PlaceOrder, Status

from linkspan import Context, Service

orders = Service("orders", Orders)


@orders.handles(Orders.get_order)
async def get_order(ctx: Context, request: GetOrder) -> Order:
    return Order(order_id=request.order_id, status=Status.PLACED)


@orders.handles(Orders.place_order)
async def place_order(ctx: Context, request: PlaceOrder) -> Order:
    await ctx.publish(OrderPlaced(order_id=request.order_id))
    await ctx.send(Orders.place_order, request, key="k")
    await ctx.publish(OrderService.order_moved, OrderMoved(order_id="7"))
    reply = await ctx.call(OrderService.get_order, GetOrderRequest(order_id="7"))
    assert_type(reply, OrderReply)
    order = await ctx.call(Orders.get_order, GetOrder(order_id=request.order_id), timeout=0.5, key="k")
    assert_type(order, Order)
    return await ctx.call(Orders.place_order, request)


@orders.on(OrderPlaced)
async def placed(ctx: Context, event: OrderPlaced) -> None:
    assert_type(event.order_id, str)


@orders.on(OrderService.order_moved)
async def moved(ctx: Context, event: OrderMoved) -> None:
    assert_type(event.order_id, str)


generated = Service("generated", OrderService)


@generated.handles(OrderService.get_order)
async def get_generated(ctx: Context, request: GetOrderRequest) -> OrderReply:
    return OrderReply(order_id=request.order_id)
