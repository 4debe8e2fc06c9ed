"""Contract of the orders service: the life of an order, from placed to settled or declined."""

from linkspan import Contract, Event, Int32, Message, ServiceContract, command, field, query, repeated

contract = Contract("shop.orders.v1")


class Line(Message):
    """So many pieces of one article, at a price of `cents` each."""

    sku: str = field(1)
    pieces: Int32 = field(2)
    cents: int = field(3)


class AcceptOrder(Message):
    """Take over an order that the storefront has promised to a customer."""

    order_id: str = field(1, key=True)
    customer: str = field(2, pii=True)
    lines: list[Line] = repeated(3)


class RefundOrder(Message):
    """Take lines of an order back. It is held while the order is open, and refused when the order was never paid."""

    order_id: str = field(1, key=True)
    refund_id: str = field(2)
    lines: list[Line] = repeated(3)


class OrderRef(Message):
    order_id: str = field(1)


class GetOrder(Message):
    order_id: str = field(1)


class Order(Message):
    order_id: str = field(1)
    status: str = field(2)
    pieces: int = field(3)
    cents: int = field(4)


class OrderPlaced(Event):
    order_id: str = field(1, key=True)
    lines: list[Line] = repeated(2)
    pieces: int = field(3)
    cents: int = field(4)


class OrderSettled(Event):
    """The customer has paid; the goods may go out."""

    order_id: str = field(1, key=True)
    pieces: int = field(2)
    cents: int = field(3)


class OrderDeclined(Event):
    """The customer could not pay, and what was reserved has been given back."""

    order_id: str = field(1, key=True)


class OrderRefunded(Event):
    """The customer has the money back; the goods return to the shelf."""

    order_id: str = field(1, key=True)
    refund_id: str = field(2)
    lines: list[Line] = repeated(3)


class RefundRefused(Event):
    order_id: str = field(1, key=True)
    refund_id: str = field(2)


class Orders(ServiceContract):
    accept_order = command(AcceptOrder, OrderRef, answer="later")
    refund_order = command(RefundOrder, OrderRef, answer="later")
    get_order = query(GetOrder, Order)
