"""The contract: the same eight-field event and the same query that the peers carry."""

from __future__ import annotations

from linkspan import Contract, Event, Message, ServiceContract, field, query, repeated

contract = Contract("bench.orders.v1")


class OrderPlaced(Event):
    """An order is stored."""

    order_id: str = field(1, key=True)
    customer_id: str = field(2)
    country: str = field(3)
    cents: int = field(4)
    quantity: int = field(5)
    placed_at: int = field(6)
    skus: list[str] = repeated(7)
    note: str = field(8)


class GetOrder(Message):
    """Ask for an order."""

    order_id: str = field(1)
    note: str = field(2)
    detailed: bool = field(3)


class Order(Message):
    """One order."""

    order_id: str = field(1)
    note: str = field(2)
    cents: int = field(3)


class Orders(ServiceContract):
    """The service that owns the event and answers the query."""

    get_order = query(GetOrder, Order)
