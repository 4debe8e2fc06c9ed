"""What is fuzzed: each target takes bytes, and may fail only in the ways that its callers expect.

A target that returns has shown nothing wrong. One that raises, hangs or grows has found something: the input is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httptools
from nats.aio.client import Client, Srv
from nats.errors import ProtocolError

from examples.shop import orders_csv
from fuzz.messages import Echo, Everything
from fuzz.rest import rest_answer, rest_request
from linkspan import envelope
from linkspan.batch import MAX_CONTENT, MAX_EVENTS, Single, singles
from linkspan.brokers.nats_consumer import own_headers
from linkspan.brokers.nats_hotpath import HotParser
from linkspan.content import decode_content
from linkspan.errors import Code, Error
from linkspan.message import decode, decode_json
from linkspan.runtime import system
from linkspan.transport.http import Connection, PoolLimits
from linkspan.transport.server import DirectServer, Endpoint, Inbound
from linkspan.transport.unary import read_error, read_json, registry_of
from linkspan.zstd import Packer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TARGETS"]


MAX_BYTES = 65_536
TURNS = 200
"""Turns of the loop that a request of the server may take; far more than it needs."""


# --- messages and envelopes -----------------------------------------------------------------------


def binary(data: bytes) -> None:
    """Read protobuf: what can be read can be written, and read again as the same."""
    try:
        message = decode(Everything, data)
    except Error:
        return
    _survives(message)


def _survives(message: Everything) -> None:
    written = message.to_binary()
    assert decode(Everything, written).to_binary() == written


def json_text(data: bytes) -> None:
    """Read ProtoJSON, by both readers: of messages, and of requests."""
    with contextlib.suppress(Error):
        read_json(data, Everything, Code.INVALID_ARGUMENT)
    try:
        message = decode_json(Everything, data)
    except Error:
        return
    _survives(message)


def cloud_event(data: bytes) -> None:
    """Read a block of CloudEvents headers, as a broker delivers it; what is canonical stays the same."""
    try:
        found = envelope.read(data)
    except Error:
        return
    assert len(found.id) <= envelope.MAX_KEY
    assert len(found.key) <= envelope.MAX_KEY
    head = envelope.prefix(found.type, found.source, found.content_type)
    if data.startswith(b"ce-specversion") and f"{head}{found.time}{found.trace}{found.expires}".isascii():  # as our own are
        again = envelope.read(envelope.render(head, found))
        assert (again.id, again.key, again.type) == (found.id, found.key, found.type)


def structured_event(data: bytes) -> None:
    """Read a whole CloudEvent in JSON, its attributes and its data."""
    with contextlib.suppress(Error):
        found = envelope.read(b"content-type: application/cloudevents+json\r\n", data)
        again = envelope.read(envelope.render(envelope.prefix("t", found.source), found))
        assert (again.id, again.key, again.source) == (found.id, found.key, found.source)
        _survives(decode_content(Everything, data, found.content_type))


def batch(data: bytes) -> None:
    """Read a batch, as it comes and as if the input were what it holds; what comes out is not more than the caps allow."""
    for body in (data, Packer().packed(data), Packer().packed(b"\x01" + data)):
        with contextlib.suppress(Error):
            found = singles(body)
            assert len(found) <= MAX_EVENTS
            assert sum(len(single.data) for single in found) <= MAX_CONTENT
            for single in found:
                _same_attributes(single)


def _same_attributes(single: Single) -> None:
    if single.envelope is not None:
        assert single.envelope == envelope.read(single.headers)


def messagepack(data: bytes) -> None:
    """Read MessagePack."""
    with contextlib.suppress(Error):
        _survives(decode_content(Everything, data, "application/msgpack"))


def error_text(data: bytes) -> None:
    """Read the body of a failed answer."""
    with contextlib.suppress(ValueError):
        assert isinstance(read_error(500, data, registry_of(Everything)), Error)


# --- NATS -----------------------------------------------------------------------------------------


class NatsFrames:
    """What a server sends, cut into two pieces: frames of a claimed subscription come out whole."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        self._loop.close()

    def __call__(self, data: bytes) -> None:
        """Parse the input as it comes from the socket."""
        self._loop.run_until_complete(self._feed(data))

    async def _feed(self, data: bytes) -> None:
        client: Any = Client()
        client._current_server = Srv(urlsplit("nats://peer:4222"))
        client._flush_queue = asyncio.Queue()
        parser = HotParser(client)
        parser.sinks[b"1"] = _receive
        middle = data[-1] % len(data) if data else 0
        with contextlib.suppress(ProtocolError):
            await parser.parse(data[:middle])
            await parser.parse(data[middle:])
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)


def _receive(subject: bytes, reply: bytes, headers: bytes, body: bytes) -> None:
    assert all(isinstance(part, bytes) for part in (subject, reply, headers, body))
    own_headers(headers)


# --- HTTP -----------------------------------------------------------------------------------------


class _Transport(asyncio.Transport):
    """A connection that nobody holds at the other end."""

    def __init__(self, plug: socket.socket) -> None:
        super().__init__({"socket": plug, "peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: Any) -> None:
        if not self.closing:  # as a real one does
            self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Take any."""

    def pause_reading(self) -> None:
        """Go on."""

    def resume_reading(self) -> None:
        """Go on."""


class _Answers:
    """Reads what the server wrote: HTTP with whole bodies, and no answer that blames the handler."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body = b""

    def on_message_begin(self) -> None:
        self.body = b""

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        assert status != 500, self.body
        if status >= 400 and self.body.startswith(b"{"):
            assert json.loads(self.body)["code"] != "internal", self.body


class HttpServer:
    """The direct path's server, a connection per input; made once."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._plug, self._other = socket.socketpair()
        self._failures: list[Any] = []
        self._loop.set_exception_handler(lambda _loop, context: self._failures.append(context))

        async def echo(request: Any, _inbound: Inbound) -> Any:
            return request

        server: Any = DirectServer([Endpoint(Echo.echo, echo)], runtime=system(), max_message_bytes=MAX_BYTES)
        server._config.load()
        self._server = server
        self._loop.run_until_complete(server._load())

    def close(self) -> None:
        for part in (self._loop, self._plug, self._other):
            part.close()

    def __call__(self, data: bytes) -> None:
        """Send the input in two pieces, wait until it is answered, hang up."""
        self._loop.run_until_complete(self._connection(data))
        assert not self._failures, self._failures

    async def _connection(self, data: bytes) -> None:
        protocol = self._server._protocol()
        transport = _Transport(self._plug)
        protocol.connection_made(transport)
        middle = data[-1] % len(data) if data else 0
        for piece in (data[:middle], data[middle:]):
            if piece and not transport.closing:
                protocol.data_received(piece)
            await asyncio.sleep(0)
        for _ in range(TURNS):
            if not self._server._state.tasks:
                break
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        for _ in range(TURNS):
            if not self._server._state.tasks:
                break
            await asyncio.sleep(0)
        assert not self._server._state.tasks, "a request has not ended"
        with contextlib.suppress(httptools.HttpParserUpgrade):
            _Answers().parser.feed_data(b"".join(transport.written))


class HttpClient:
    """The direct path's client, reading what a server answers."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._plug, self._other = socket.socketpair()
        self._registry = registry_of(Everything)

    def close(self) -> None:
        for part in (self._loop, self._plug, self._other):
            part.close()

    def __call__(self, data: bytes) -> None:
        """Ask once, get the input as the answer in two pieces, then the end."""
        self._loop.run_until_complete(self._exchange(data))

    async def _exchange(self, data: bytes) -> None:
        pool: Any = SimpleNamespace(
            address=SimpleNamespace(text="http://peer", tls=False),
            limits=PoolLimits(),
            max_bytes=MAX_BYTES,
            release=lambda _connection: None,
            lost=lambda _connection: None,
        )
        connection = Connection(pool)
        connection.connection_made(_Transport(self._plug))
        answer = connection.exchange(b"", 1.0)
        middle = data[-1] % len(data) if data else 0
        for piece in (data[:middle], data[middle:]):
            if piece:
                connection.data_received(piece)
        connection.eof_received()
        connection.connection_lost(None)
        assert answer.done()
        with contextlib.suppress(Error, ValueError):
            found = answer.result()
            assert len(found.body) <= MAX_BYTES
            if found.status == 200:
                decode(Everything, found.body)
            else:
                read_error(found.status, found.body, self._registry)


# --- files ----------------------------------------------------------------------------------------


class OrdersFile:
    """The shop's CSV: rows are accepted or rejected with a reason, and none is lost."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "orders.csv"

    def close(self) -> None:
        self._folder.cleanup()

    def __call__(self, data: bytes) -> None:
        """Read the input as a file."""
        self._path.write_bytes(b"InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\r\n" + data)
        with contextlib.suppress(orders_csv.OrdersFileError):
            invoices, rejected = orders_csv.read_invoices(self._path)
            assert all(row.reason for row in rejected)
            assert all(invoice.lines for invoice in invoices)


TARGETS: dict[str, Callable[[], Callable[[bytes], None]]] = {
    "binary": lambda: binary,
    "json": lambda: json_text,
    "cloud-event": lambda: cloud_event,
    "structured-event": lambda: structured_event,
    "batch": lambda: batch,
    "messagepack": lambda: messagepack,
    "error": lambda: error_text,
    "nats": NatsFrames,
    "http-server": HttpServer,
    "http-client": HttpClient,
    "rest-request": lambda: rest_request,
    "rest-answer": lambda: rest_answer,
    "orders-file": OrdersFile,
}
"""A name, and what makes the function that takes the input; slow parts are made once."""
