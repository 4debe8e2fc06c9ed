"""A contract with routes, the app that serves it, and curl to call it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import App, Context, Contract, Message, Service, ServiceContract, command, field, query
from linkspan.errors import Code, Error
from linkspan.message import Duration, Enum, Timestamp, UInt32, repeated
from linkspan.routes import Http
from linkspan.transport.retry import RetryDelay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

contract = Contract("rest.shop.v1")


class Status(Enum):
    UNSPECIFIED = 0
    OPEN = 1
    PAID = 2


class Order(Message):
    """What was bought."""

    order_id: str = field(1, key=True)
    """The number on the bill."""
    quantity: int = field(2, default=0)
    status: Status = field(3, default=Status.UNSPECIFIED)
    placed: Timestamp | None = field(4, default=None)
    note: str = field(5, default="", pii=True)


class GetOrder(Message):
    order_id: str = field(1)


class FindOrders(Message):
    status: list[Status] = repeated(1)
    limit: UInt32 = field(2)
    since: Timestamp | None = field(3, default=None)
    within: Duration | None = field(4, default=None)
    like: Order | None = field(5, default=None)


class Orders(Message):
    orders: list[Order] = repeated(1)


class UpdateOrder(Message):
    order: Order | None = field(1, default=None)
    reason: str = field(2)


class Shop(ServiceContract):
    """All about orders."""

    get_order = query(GetOrder, Order, http=Http("GET /v1/orders/{order_id}", additional=("GET /v1/{order_id=archive/*}",)))
    """One order."""
    find_orders = query(FindOrders, Orders, http=Http("GET /v1/orders", response_body="orders"))
    latest = query(FindOrders, Order, http="GET /v1/orders/latest")
    place_order = command(Order, Order, http="POST /v1/orders")
    update_order = command(UpdateOrder, Order, http=Http("PATCH /v1/orders/{order.order_id}", body="order"))
    cancel_order = command(GetOrder, Order, http="POST /v1/orders/{order_id}:cancel")
    drop_order = command(GetOrder, Order, http="DELETE /v1/orders/{order_id}")
    plain = query(GetOrder, Order)


class Seen:
    """What the handlers saw."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.contexts: list[Context] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def answer(self, ctx: Context, request: Any) -> Order:
        """Do what the order id says."""
        self.requests.append(request)
        self.contexts.append(ctx)
        match request.order_id:
            case "missing":
                raise Error(Code.NOT_FOUND, "There is no such order: check the id.", [Order(order_id="missing")])
            case "busy":
                raise Error(Code.RESOURCE_EXHAUSTED, "Too many: try later.", [RetryDelay(retry_delay=Duration.from_nanos(2_500_000_000))])
            case "bug":
                raise RuntimeError("secret db password")
            case "wait":
                self.started.set()
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
        return Order(order_id=request.order_id, quantity=2**53 + 1, status=Status.OPEN)


def shop(seen: Seen) -> Service:
    service = Service("shop", Shop)
    for operation in (Shop.get_order, Shop.place_order, Shop.cancel_order, Shop.drop_order, Shop.plain):
        service.handles(operation)(seen.answer)

    @service.handles(Shop.find_orders)
    async def find(ctx: Context, request: FindOrders) -> Orders:
        seen.requests.append(request)
        return Orders(orders=[Order(order_id=str(number)) for number in range(min(request.limit, 10))])

    @service.handles(Shop.latest)
    async def latest(ctx: Context, request: FindOrders) -> Order:
        return Order(order_id="latest")

    @service.handles(Shop.update_order)
    async def update(ctx: Context, request: UpdateOrder) -> Order:
        seen.requests.append(request)
        return request.order or Order(order_id="")

    return service


@contextlib.asynccontextmanager
async def open_shop(folder: Path, **options: Any) -> AsyncIterator[tuple[App, Seen]]:
    """Run the shop on a free port."""
    seen = Seen()
    async with App(shop(seen), broker="memory://", data=folder, http="127.0.0.1:0", **options) as app:
        yield app, seen


async def curl(*arguments: str) -> tuple[int, dict[str, str], Any]:
    """Call by the real curl; return status, headers and body (read as JSON where it is)."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("not run: curl is not installed")
    process = await asyncio.create_subprocess_exec(
        program, "-sS", "-i", "--path-as-is", "--max-time", "20", *arguments, stdout=asyncio.subprocess.PIPE
    )
    written, _ = await process.communicate()
    head, _, body = written.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, json.loads(body) if headers.get("content-type") == "application/json" and body else body


def as_json(value: Any, *, method: str = "POST") -> list[str]:
    return ["-X", method, "-H", "content-type: application/json", "-d", json.dumps(value)]
