"""A contract, and services made of handlers given by the test; memory broker, real SQLite, real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan import App, Context, Contract, Event, Message, Service, ServiceContract, command, field, query
from linkspan.envelope import Envelope, lane_of, prefix, render
from linkspan.ports import Outgoing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

contract = Contract("app.shop.v1")


class Place(Message):
    """Ask for an order."""

    order: str = field(1, key=True)
    note: str = field(2, pii=True)


class Find(Message):
    """Ask for what is known."""

    order: str = field(1)


class Found(Message):
    """Say what is known."""

    order: str = field(1)
    text: str = field(2)


class Placed(Event):
    """An order was placed."""

    order: str = field(1, key=True)
    note: str = field(2, pii=True)


def placed_message(id: str, key: str, note: str = "", number: int = 0) -> Outgoing:  # noqa: A002 - the CloudEvents word
    """Return a `Placed` as a message of `orders`, with the id and the number in its key's sequence that a test chooses."""
    envelope = Envelope(id, "orders", "app.shop.v1.Placed", key=key, time="2026-01-01T00:00:00.000Z")
    headers = render(prefix("app.shop.v1.Placed", "orders"), envelope)
    data = Placed(order=key, note=note).to_binary()
    return Outgoing("app.shop.v1.events", "Placed", lane_of(key), id, key, headers, data, number)


class Keyless(Event):
    """Nobody can say in which order this happened."""

    text: str = field(1)


class Orders(ServiceContract):
    place = command(Place, Found)
    find = query(Find, Found)


TABLE = "create table seen (text text)"


async def find_nothing(ctx: Context, request: Find) -> Found:
    return Found(order=request.order)


async def place_and_tell(ctx: Context, request: Place) -> Found:
    await ctx.publish(Placed(order=request.order, note=request.note))
    return Found(order=request.order)


def orders_service(*, place: Any = place_and_tell, find: Any = find_nothing, name: str = "orders", **more: Any) -> Service:
    """Return a service that implements `Orders`."""
    service = Service(name, Orders, **more)
    service.handles(Orders.place)(place)
    service.handles(Orders.find)(find)
    return service


def reacting(name: str, handler: Callable[[Context, Placed], Awaitable[None]], **more: Any) -> Service:
    """Return a service that reacts to `Placed`."""
    service = Service(name, **more)
    service.on(Placed)(handler)  # type: ignore[arg-type]  # an awaitable of a test is a coroutine
    return service


def app_of(folder: Path, *services: Service, **more: Any) -> App:
    """Return an app that needs nothing around it."""
    return App(*services, **{"broker": "memory://", "http": "127.0.0.1:0", "data": folder, **more})
