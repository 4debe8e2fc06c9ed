"""Contract of the storefront: what a customer, a browser or `curl` may ask of the shop."""

from examples.shop.contracts.orders_v1 import Line
from linkspan import Contract, Message, ServiceContract, command, field, query, repeated

contract = Contract("shop.storefront.v1")


class PlaceOrder(Message):
    """Buy. The number is the customer's: placing it again answers ALREADY_EXISTS and changes nothing."""

    order_id: str = field(1, key=True)
    customer: str = field(2, pii=True, default="")
    lines: list[Line] = repeated(3)


class Placed(Message):
    order_id: str = field(1)
    pieces: int = field(2)
    cents: int = field(3)


class ReturnGoods(Message):
    """Give lines of an order back; the same rule for its number."""

    refund_id: str = field(1)
    order_id: str = field(2, key=True)
    lines: list[Line] = repeated(3)


class Returning(Message):
    refund_id: str = field(1)


class Track(Message):
    order_id: str = field(1)


class Tracked(Message):
    order_id: str = field(1)
    status: str = field(2)


class Storefront(ServiceContract):
    place_order = command(PlaceOrder, Placed, answer="now")
    return_goods = command(ReturnGoods, Returning, answer="now")
    track = query(Track, Tracked)
