"""Handlers and call sites on an imported contract; tests add lines that are wrong."""

from collections.abc import AsyncIterator

from market_gen.market.money.v1.money_pb import GetRateRequest, Money
from market_gen.market.orders.v1.orders import GetOrderRequest, Order, OrderPlaced, OrderService, PlaceOrderRequest
from protobuf.wkt.google.protobuf.empty_pb import Empty

from linkspan import App, Context, Service

market, mail = Service("market", OrderService), Service("mail")


@market.handles(OrderService.get_order)
async def get_order(ctx: Context, request: GetOrderRequest) -> Order:
    return Order(order_id=request.order_id, status=Order.Status.PLACED)


@market.handles(OrderService.find_order)
async def find_order(ctx: Context, request: GetOrderRequest) -> Order:
    return Order(order_id=request.order_id)


@market.handles(OrderService.place_order)
async def place_order(ctx: Context, request: PlaceOrderRequest) -> Order:
    await ctx.publish(OrderService.order_placed, OrderPlaced(order_id=request.order_id))
    return Order(order_id=request.order_id, status=Order.Status.PLACED)


@market.handles(OrderService.cancel_order)
async def cancel_order(ctx: Context, request: GetOrderRequest) -> Empty:
    return Empty()


@market.handles(OrderService.get_rate)
async def get_rate(ctx: Context, request: GetRateRequest) -> Money:
    return Money(currency=request.currency, cents=100)


@market.handles(OrderService.watch_urls)
async def watch(ctx: Context, request: GetOrderRequest) -> AsyncIterator[Order]:
    yield Order(order_id=request.order_id)


@market.handles(OrderService.upload)
async def upload(ctx: Context, requests: AsyncIterator[Order]) -> Order:
    return [order async for order in requests][-1]


@market.handles(OrderService.import_)
async def import_orders(ctx: Context, requests: AsyncIterator[Order]) -> AsyncIterator[Order]:
    async for order in requests:
        yield order


@mail.on(OrderService.order_placed)
async def thank(ctx: Context, event: OrderPlaced) -> None:
    order = await ctx.call(OrderService.get_order, GetOrderRequest(order_id=event.order_id))
    print(f"thanked {order.order_id} {order.status.name}", flush=True)


app = App(market, mail)
