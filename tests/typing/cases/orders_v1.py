"""The contract that the cases use."""

from __future__ import annotations

from typing import Literal

from linkspan import (
    Contract,
    Enum,
    Event,
    Int32,
    Message,
    Oneof,
    ServiceContract,
    Timestamp,
    command,
    field,
    mapping,
    oneof,
    query,
    repeated,
    stream,
)

contract = Contract("shop.orders.v1")


class Status(Enum):
    UNSPECIFIED = 0
    PLACED = 1


class Line(Message):
    sku: str = field(1)
    quantity: Int32 = field(2)


class PlaceOrder(Message):
    order_id: str = field(1, key=True)
    lines: list[Line] = repeated(2)


class GetOrder(Message):
    order_id: str = field(1)


class WatchOrders(Message):
    customer_id: str = field(1, pii=True)


class Card(Message):
    number: str = field(1, pii=True)


class Order(Message, reserved=(4, "total")):
    order_id: str = field(1)
    status: Status = field(2)
    placed_at: Timestamp | None = field(3, default=None)
    note: str | None = field(5, default=None)
    tags: dict[str, str] = mapping(6)
    how: Oneof[Literal["card"], Card] | Oneof[Literal["iban"], str] | None = oneof(card=8, iban=9)


class OrderPlaced(Event):
    order_id: str = field(1, key=True)


class OrderCancelled(Event):
    order_id: str = field(1, key=True)
    reason: str = field(2, default="")


class Orders(ServiceContract):
    place_order = command(PlaceOrder, Order)
    get_order = query(GetOrder, Order, staleness=2.0)
    watch = query(WatchOrders, stream(Order))
    import_orders = command(stream(PlaceOrder), Order)
    chat = command(stream(PlaceOrder), stream(Order))
