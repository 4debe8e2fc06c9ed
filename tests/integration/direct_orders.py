"""A contract, a server that serves it, and raw sockets, for the tests of the direct path."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Self

from linkspan.contract import Contract
from linkspan.errors import Code, Error
from linkspan.message import Message, field
from linkspan.operation import ServiceContract, command, query
from linkspan.runtime import system
from linkspan.transport.connect import ConnectChannel
from linkspan.transport.server import DirectServer, Endpoint, Inbound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

contract = Contract("shop.direct.v1")


class GetOrder(Message):
    order_id: str = field(1)


class Order(Message):
    order_id: str = field(1)
    quantity: int = field(2)
    note: str = field(3)


class OutOfStock(Message):
    sku: str = field(1)


class Orders(ServiceContract):
    get_order = query(GetOrder, Order)
    place_order = command(Order, Order)


PATH = "/shop.direct.v1.Orders/GetOrder"
RUNTIME = system()
FAST = True  # set to each value in turn by conftest.py


class Shop:
    """Handlers whose behaviour the order id chooses, and what they saw."""

    def __init__(self) -> None:
        self.inbound: list[Inbound] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()

    async def get_order(self, request: Any, inbound: Inbound) -> Any:
        self.inbound.append(inbound)
        match request.order_id:
            case "missing":
                raise Error(Code.NOT_FOUND, "No order 'missing': check the id.", [OutOfStock(sku="tea")])
            case "bug":
                raise RuntimeError("secret db password")
            case "wrong":
                return OutOfStock(sku="x")
            case "stray":
                raise asyncio.CancelledError
            case "unwritable":
                return Order(quantity="many")  # type: ignore[arg-type]
            case "wait":
                await self._wait()
        return Order(order_id=request.order_id, quantity=3)

    async def place_order(self, request: Any, inbound: Inbound) -> Any:
        self.inbound.append(inbound)
        return request

    async def _wait(self) -> None:
        self.started.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    @property
    def endpoints(self) -> list[Endpoint]:
        return [Endpoint(Orders.get_order, self.get_order), Endpoint(Orders.place_order, self.place_order)]


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Shop, DirectServer]]:
    shop = Shop()
    server = DirectServer(shop.endpoints, **{"runtime": RUNTIME, "fast": FAST, **options})
    await server.start()
    try:
        yield shop, server
    finally:
        await server.drain(0.5)


@contextlib.asynccontextmanager
async def channel_to(address: str, **options: Any) -> AsyncIterator[ConnectChannel]:
    channel = ConnectChannel(address, runtime=RUNTIME, **options)
    try:
        yield channel
    finally:
        await channel.aclose()


async def get(channel: ConnectChannel, order_id: str = "7", *, timeout: float = 5.0, **headers: str) -> Any:
    return await channel.unary(Orders.get_order, GetOrder(order_id=order_id), headers=headers, timeout=timeout)


class Raw:
    """A plain socket that speaks HTTP by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        self.writer.write(request)
        return await self.answer()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split()[1]), headers, body

    async def code(self, request: bytes) -> tuple[int, str]:
        status, _, body = await self.ask(request)
        return status, json.loads(body)["code"] if body.startswith(b"{") else ""

    async def at_end(self) -> bool:
        try:
            return await self.reader.read(1) == b""
        except ConnectionResetError:
            return True


@contextlib.asynccontextmanager
async def raw(address: str) -> AsyncIterator[Raw]:
    host, _, port = address.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def post(body: bytes = b'{"orderId":"7"}', path: str = PATH, **headers: str) -> bytes:
    fields = {"content_type": "application/json", "content_length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)
    return f"POST {path} HTTP/1.1\r\nhost: test\r\n{lines}\r\n".encode("latin-1") + body


class Peer:
    """A server that answers each request on each connection as a script says; keeps what it read."""

    def __init__(self, script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> None:
        self._script = script
        self.requests: list[bytes] = []
        self.connections = 0
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._script(reader, writer)
        writer.close()

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        request = head + await reader.readexactly(length)
        self.requests.append(request)
        return request


def answering(*pieces: bytes) -> Peer:
    """Answer every request with these bytes, written piece by piece."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await peer.read(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if any(b"close" in piece for piece in pieces):
                return

    peer = Peer(script)
    return peer


def ok(order_id: str = "7", *, extra: str = "") -> bytes:
    body = Order(order_id=order_id).to_binary()
    return f"HTTP/1.1 200 OK\r\ncontent-type: application/proto\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode() + body
