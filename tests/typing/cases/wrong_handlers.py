# Needs Service.handles, Service.on
from collections.abc import AsyncIterator, Iterator

from orders_v1 import GetOrder, Order, OrderCancelled, OrderPlaced, Orders, PlaceOrder, Status, WatchOrders

from linkspan import Context, Service

orders = Service("orders", Orders)


@orders.handles(Orders.get_order)  # wrong: handler with a wrong request
async def wrong_request(ctx: Context, request: PlaceOrder) -> Order:
    return Order(order_id=request.order_id, status=Status.PLACED)


@orders.handles(Orders.get_order)  # wrong: handler with a wrong result
async def wrong_result(ctx: Context, request: GetOrder) -> GetOrder:
    return request


@orders.handles(Orders.get_order)  # wrong: handler that is not async
def not_async(ctx: Context, request: GetOrder) -> Order:
    return Order(order_id=request.order_id, status=Status.PLACED)


@orders.handles(Orders.get_order)  # wrong: handler with swapped arguments
async def swapped(request: GetOrder, ctx: Context) -> Order:
    return Order(order_id=request.order_id, status=Status.PLACED)


@orders.handles(Orders.get_order)  # wrong: handler without a context
async def missing(request: GetOrder) -> Order:
    return Order(order_id=request.order_id, status=Status.PLACED)


@orders.on(OrderPlaced)  # wrong: handler of another event
async def wrong_event(ctx: Context, event: OrderCancelled) -> None:
    pass


@orders.handles(Orders.watch)  # wrong: unary handler for a stream
async def unary(ctx: Context, request: WatchOrders) -> Order:
    return Order(order_id="7", status=Status.PLACED)


@orders.handles(Orders.watch)  # wrong: stream handler with a wrong request
async def wrong_watch_request(ctx: Context, request: GetOrder) -> AsyncIterator[Order]:
    yield Order(order_id="7", status=Status.PLACED)


@orders.handles(Orders.watch)  # wrong: stream handler with a wrong result
async def wrong_watch_result(ctx: Context, request: WatchOrders) -> AsyncIterator[GetOrder]:
    yield GetOrder(order_id="7")


@orders.handles(Orders.watch)  # wrong: stream handler that is not async
def sync_watch(ctx: Context, request: WatchOrders) -> Iterator[Order]:
    yield Order(order_id="7", status=Status.PLACED)


@orders.handles(Orders.import_orders)  # wrong: client stream handler of one request
async def one_request(ctx: Context, request: PlaceOrder) -> Order:
    return Order(order_id="7", status=Status.PLACED)


@orders.handles(Orders.import_orders)  # wrong: client stream handler that yields
async def yielding(ctx: Context, requests: AsyncIterator[PlaceOrder]) -> AsyncIterator[Order]:
    yield Order(order_id="7", status=Status.PLACED)


@orders.handles(Orders.chat)  # wrong: bidirectional handler that returns
async def returning(ctx: Context, requests: AsyncIterator[PlaceOrder]) -> Order:
    return Order(order_id="7", status=Status.PLACED)


@orders.handles(Orders.chat)  # wrong: bidirectional handler of wrong requests
async def wrong_chat(ctx: Context, requests: AsyncIterator[GetOrder]) -> AsyncIterator[Order]:
    yield Order(order_id="7", status=Status.PLACED)


@orders.handles(Orders.get_order)  # wrong: stream handler for a unary operation
async def streaming_unary(ctx: Context, request: GetOrder) -> AsyncIterator[Order]:
    yield Order(order_id="7", status=Status.PLACED)


@orders.on(GetOrder)  # wrong: subscription to a request
async def not_an_event(ctx: Context, event: GetOrder) -> None:
    pass
