"""A contract of streams, a server that serves it, and envelopes made by hand, for the tests of streams on the direct path."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from typing import TYPE_CHECKING, Any

from linkspan.contract import Contract
from linkspan.errors import Code, Error
from linkspan.message import Message, field
from linkspan.operation import ServiceContract, command, query, stream
from linkspan.runtime import system
from linkspan.transport.server import DirectServer, Endpoint, Inbound, StreamEndpoint

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tests.integration.direct_orders import Raw

contract = Contract("shop.direct.streams.v1")
RUNTIME = system()


class Item(Message):
    text: str = field(1)
    number: int = field(2)


class Items(ServiceContract):
    watch = query(Item, stream(Item))
    upload = command(stream(Item), Item)
    chat = query(stream(Item), stream(Item))
    get = query(Item, Item)


class Shop:
    """Handlers whose behaviour the first text chooses, and what they saw."""

    def __init__(self) -> None:
        self.inbound: list[Inbound] = []
        self.received: list[str] = []
        self.errors: list[Any] = []
        self.yielded = 0
        self.began, self.ended = asyncio.Event(), asyncio.Event()
        self.go_on = asyncio.Event()

    async def watch(self, requests: AsyncIterator[Any], inbound: Inbound) -> AsyncGenerator[Any, None]:
        self.inbound.append(inbound)
        (request,) = [request async for request in requests]
        for number in range(request.number):
            yield Item(text=request.text, number=number)
        match request.text:
            case "coded":
                raise Error(Code.NOT_FOUND, "No more.", [Item(text="why")])
            case "bug":
                raise ValueError("secret db password")

    async def upload(self, requests: AsyncIterator[Any], inbound: Inbound) -> AsyncGenerator[Any, None]:
        self.inbound.append(inbound)
        try:
            async for request in requests:
                self.received.append(request.text)
                self.began.set()
                if request.text == "enough":
                    break
        except BaseException as error:
            self.errors.append(error)
            raise
        finally:
            self.ended.set()
        yield Item(text=",".join(self.received))

    async def chat(self, requests: AsyncIterator[Any], inbound: Inbound) -> AsyncGenerator[Any, None]:
        self.inbound.append(inbound)
        first = await anext(requests)
        self.began.set()
        try:
            if first.text == "endless":
                while True:
                    self.yielded += 1
                    yield Item(text="x" * 1000)
                    await asyncio.sleep(0)
            if first.text == "silent":
                await self.go_on.wait()
            yield first
            async for request in requests:
                yield request
        finally:
            self.ended.set()

    async def get(self, request: Any, inbound: Inbound) -> Any:
        self.inbound.append(inbound)
        return request

    @property
    def endpoints(self) -> list[Endpoint | StreamEndpoint]:
        streams = [(Items.watch, self.watch), (Items.upload, self.upload), (Items.chat, self.chat)]
        return [Endpoint(Items.get, self.get), *(StreamEndpoint(operation, serve) for operation, serve in streams)]


@contextlib.asynccontextmanager
async def serving_streams(**options: Any) -> AsyncIterator[tuple[Shop, DirectServer]]:
    shop = Shop()
    server = DirectServer(shop.endpoints, **{"runtime": RUNTIME, **options})
    await server.start()
    try:
        yield shop, server
    finally:
        await server.drain(0.5)


def envelope(message: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(message)) + message


def item(text: str = "", number: int = 0) -> bytes:
    return envelope(Item(text=text, number=number).to_binary())


def item_json(text: str) -> bytes:
    return envelope(json.dumps({"text": text}).encode())


def end(content: Any = None) -> bytes:
    return envelope(json.dumps({} if content is None else content).encode(), 2)


def head(rpc: str, *, kind: str = "application/connect+proto", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"POST /shop.direct.streams.v1.Items/{rpc} HTTP/1.1\r\nhost: test\r\ncontent-type: {kind}\r\n{lines}\r\n".encode()


def asked(rpc: str, *pieces: bytes, **headers: str) -> bytes:
    body = b"".join(pieces)
    return head(rpc, content_length=str(len(body)), **headers) + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def status_of(peer: Raw) -> tuple[int, dict[str, str]]:
    lines = (await peer.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    return int(lines[0].split()[1]), {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}


async def whole_body(peer: Raw, headers: dict[str, str]) -> bytes:
    if "content-length" in headers:
        return await peer.reader.readexactly(int(headers["content-length"]))
    body = b""
    while size := int(await peer.reader.readuntil(b"\r\n"), 16):
        body += await peer.reader.readexactly(size)
        await peer.reader.readexactly(2)
    await peer.reader.readexactly(2)
    return body


def cut(body: bytes) -> list[tuple[int, bytes]]:
    """Return flags and messages of all envelopes."""
    found = []
    while body:
        flags, length = struct.unpack_from(">BI", body)
        found.append((flags, body[5 : 5 + length]))
        body = body[5 + length :]
    return found


async def stream_of(peer: Raw) -> tuple[list[str], dict[str, Any]]:
    """Read a whole stream: the texts of its messages, and how it ended."""
    status, headers = await status_of(peer)
    assert status == 200, headers
    assert headers["content-type"].startswith("application/connect+")
    *messages, (flags, last) = cut(await whole_body(peer, headers))
    assert flags == 2
    return [Item.from_binary(message).text for _, message in messages], json.loads(last)
