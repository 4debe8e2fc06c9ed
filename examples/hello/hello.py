from linkspan import App, Context, Contract, Event, Message, Service, ServiceContract, command, field, query

contract = Contract("shop.orders.v1")

class PlaceOrder(Message):
    order_id: str = field(1, key=True)

class GetOrder(Message):
    order_id: str = field(1)

class Order(Message):
    order_id: str = field(1)
    status: str = field(2)

class OrderPlaced(Event):
    order_id: str = field(1, key=True)

class Orders(ServiceContract):
    place_order = command(PlaceOrder, Order)
    get_order = query(GetOrder, Order)

orders, mail = Service("orders", Orders), Service("mail")
@orders.handles(Orders.place_order)
async def place_order(ctx: Context, request: PlaceOrder) -> Order:
    await ctx.publish(OrderPlaced(order_id=request.order_id))
    return Order(order_id=request.order_id, status="placed")
@orders.handles(Orders.get_order)
async def get_order(ctx: Context, request: GetOrder) -> Order:
    return Order(order_id=request.order_id, status="placed")
@mail.on(OrderPlaced)
async def thank(ctx: Context, event: OrderPlaced) -> None:
    order = await ctx.call(Orders.get_order, GetOrder(order_id=event.order_id), timeout=0.5)
    print(f"Thank you: order {order.order_id} is {order.status}.")
app = App(orders, mail)
