"""A contract with every kind of stream, and a service whose handlers the test gives; memory broker, real SQLite, real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan import App, Context, Contract, Event, Message, Service, ServiceContract, command, field, query, stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

contract = Contract("app.streams.v1")


class Count(Message):
    """Ask for as many numbers."""

    to: int = field(1)
    text: str = field(2)


class Number(Message):
    """Say one of them."""

    value: int = field(1)
    text: str = field(2)


class Counted(Event):
    """Somebody counted."""

    key: str = field(1, key=True)


class Numbers(ServiceContract):
    count = query(Count, stream(Number))
    add = query(stream(Number), Number)
    double = query(stream(Number), stream(Number))
    note = command(Count, stream(Number))
    keep = command(stream(Number), Number)
    swap = command(stream(Number), stream(Number))
    one = query(Count, Number)


async def count(ctx: Context, request: Count) -> AsyncIterator[Number]:
    for value in range(1, request.to + 1):
        yield Number(value=value)


async def add(ctx: Context, requests: AsyncIterator[Number]) -> Number:
    return Number(value=sum([number.value async for number in requests]))


async def double(ctx: Context, requests: AsyncIterator[Number]) -> AsyncIterator[Number]:
    async for number in requests:
        yield Number(value=2 * number.value)


async def one(ctx: Context, request: Count) -> Number:
    return Number(value=request.to)


async def numbers(*values: int) -> AsyncIterator[Number]:
    for value in values:
        yield Number(value=value)


def numbers_service(name: str = "numbers", *, more: dict[str, Any] | None = None, **handlers: Any) -> Service:
    """Return a service that implements `Numbers`."""
    service = Service(name, Numbers, **(more or {}))
    plain = {"count": count, "add": add, "double": double, "note": count, "keep": add, "swap": double, "one": one}
    for operation in Numbers.operations:
        service.handles(operation)({**plain, **handlers}[operation.name])  # type: ignore[call-overload]
    return service


def streams_app(folder: Path, *services: Service, **more: Any) -> App:
    """Return an app that needs nothing around it."""
    return App(*services, **{"broker": "memory://", "http": "127.0.0.1:0", "data": folder, **more})
