"""What a generated client calls: fields of many types, refusals with details, and every kind of stream."""

from __future__ import annotations

from typing import Literal

from linkspan import (
    Contract,
    Enum,
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

contract = Contract("neighbours.orders.v1")


class Status(Enum):
    """How far an order is."""

    UNSPECIFIED = 0
    OPEN = 1
    PAID = 2


class Line(Message):
    """So many of one article."""

    sku: str = field(1)
    quantity: Int32 = field(2)


class FindOrder(Message):
    """Ask for an order."""

    order_id: str = field(1, min_len=1)


class PlaceOrder(Message):
    """Ask to take an order."""

    order_id: str = field(1, key=True, min_len=1)
    lines: list[Line] = repeated(2)
    cents: int = field(3, gt=0)


Card = Oneof[Literal["card"], str]
Iban = Oneof[Literal["iban"], str]


class Order(Message):
    """An order, as it stands."""

    order_id: str = field(1)
    status: Status = field(2)
    lines: list[Line] = repeated(3)
    cents: int = field(4)
    placed: Timestamp | None = field(5, default=None)
    note: str | None = field(6, default=None)
    tags: dict[str, Int32] = mapping(7)
    paid: Card | Iban | None = oneof(card=8, iban=9)
    seal: bytes = field(10, default=b"")


class OutOfStock(Message):
    """Why an order was refused."""

    sku: str = field(1)
    left: Int32 = field(2)


class Orders(ServiceContract):
    """Takes orders and tells of them."""

    find = query(FindOrder, Order)
    place = command(PlaceOrder, Order)
    watch = query(FindOrder, stream(Order))
    total = query(stream(Line), Line)
    price = query(stream(Line), stream(Line))
