# Needs Saga
from orders_v1 import GetOrder, Order, OrderPlaced, Orders, PlaceOrder

from linkspan import Contract, Message, Saga, field

contract = Contract("shop.checkout.state.v1")


class Checkout(Message):
    order_id: str = field(1, key=True)


checkout = Saga("checkout", Checkout)


@checkout.starts(OrderPlaced)  # wrong: saga that starts with a wrong state
def begin(event: OrderPlaced) -> Order:
    raise NotImplementedError


@checkout.step(Orders.place_order, timeout=30)  # wrong: saga step with a wrong request
def wrong_request(state: Checkout) -> GetOrder:
    return GetOrder(order_id=state.order_id)


@checkout.step(Orders.place_order, timeout=30)
def place(state: Checkout) -> PlaceOrder:
    return PlaceOrder(order_id=state.order_id)


@place.then  # wrong: saga step with a wrong reply
def placed(state: Checkout, reply: GetOrder) -> None:
    pass


@place.undo(Orders.place_order)  # wrong: saga undo with a wrong request
def wrong_undo(state: Checkout) -> GetOrder:
    return GetOrder(order_id=state.order_id)


@checkout.step(Orders.place_order)  # wrong: saga step without a timeout
def hasty(state: Checkout) -> PlaceOrder:
    return PlaceOrder(order_id=state.order_id)
