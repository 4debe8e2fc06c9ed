"""HTTP/1.1 for the client, inside the running loop: a bounded pool of keep-alive connections to one address.

Unary calls are written onto it as they are; it also serves as the `Transport` of connectrpc's client. Rules:
- One request at a time on a connection, one write per request, the answer buffered up to a limit.
- A connection found closed before anything was written is replaced silently. Once bytes were written, a closed
  connection means *unknown*: the peer may have done the work, so the call ends with UNAVAILABLE and is never sent
  twice here (gRPC A6 allows a transparent retry only where the peer cannot have processed the request).
- A call that is cancelled or late closes its connection, which is how the peer learns of it.
- Deadlines and idle times share one timer per pool, set to the earliest of them: a call costs one comparison.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import select
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

import httptools

from linkspan.errors import Code, Error, SetupError
from linkspan.transport.tls import Tls, client_context, lost_error, unreached
from linkspan.transport.unary import MAX_MESSAGE_BYTES, TIMEOUT

if TYPE_CHECKING:
    import ssl

    from pyqwest import Request, Response

    from linkspan.ports import Clock, Timer

__all__ = ["TRANSPORT_HEADERS", "HttpTransport", "PoolLimits"]

TRANSPORT_HEADERS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "expect"})
_CODINGS: Final = frozenset({"accept-encoding", "content-encoding"})
_READABLE: Final = select.POLLIN | select.POLLHUP | select.POLLERR
_GONE: Final = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR  # under TLS a peer may say something at any time
_INFORMATIONAL: Final = 200  # statuses below announce a response, they are not one


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many connections to keep to one address, and for how long (seconds, bytes)."""

    max_connections: int = 64
    idle_timeout: float = 30.0
    connect_timeout: float = 5.0
    max_header_bytes: int = 64 * 1024


class Address(NamedTuple):
    """Where an `http://` or `https://` address leads."""

    text: str
    host: str
    port: int
    tls: bool
    authority: str
    prefix: str


class Answer(NamedTuple):
    """A whole response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(slots=True, eq=False)
class _Waiter:
    """A call that waits for a connection."""

    future: asyncio.Future[Connection]
    deadline: float


def parse_address(text: str) -> Address:
    """Split an address. Raises `SetupError` for what can never be connected to."""
    try:
        url = urlsplit(text)
        port = url.port
        host = url.hostname or ""
        host.encode("idna")
        text.encode("ascii")
    except ValueError as error:
        raise SetupError(f"Reading address '{text}' failed ({error}): write 'http://host:port'.") from error
    unfit = url.username or url.query or url.fragment or any(c.isspace() for c in text)
    if url.scheme not in {"http", "https"} or not host or port == 0 or unfit:
        raise SetupError(f"Address '{text}' cannot be called: write 'http://host:port' or 'https://host:port'.")
    tls = url.scheme == "https"
    return Address(text.rstrip("/"), host, port or (443 if tls else 80), tls, url.netloc, url.path.rstrip("/"))


class Connection(asyncio.Protocol):
    """One connection: writes a request, parses its answer, says when it is free again."""

    __slots__ = (
        "_body",
        "_complete",
        "_framed",
        "_head_bytes",
        "_headers",
        "_keep",
        "_parser",
        "_poll",
        "_pool",
        "_size",
        "_status",
        "deadline",
        "idle_since",
        "transport",
        "waiter",
    )

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parser: httptools.HttpResponseParser | None = None
        self._poll = select.poll()
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._size = self._head_bytes = 0
        self._complete = self._framed = self._keep = False
        self.transport: asyncio.Transport | None = None
        self.waiter: asyncio.Future[Answer] | None = None
        self.deadline = math.inf
        self.idle_since = 0.0

    # --- what the pool asks

    def usable(self) -> bool:
        """Tell whether a request may be written: the peer has neither closed the connection nor sent anything.

        Asks the kernel (1 µs), because the loop may not have seen it yet, and a request written now could not be sent again.
        """
        transport = self.transport
        return transport is not None and not transport.is_closing() and not self._poll.poll(0)

    def exchange(self, request: bytes, deadline: float) -> asyncio.Future[Answer]:
        """Write a request; the future ends with its answer or an `Error`."""
        transport = self.transport
        if transport is None:
            raise AssertionError("a connection is used before it is made")
        self.waiter = waiter = asyncio.get_running_loop().create_future()
        self.deadline = deadline
        transport.write(request)
        return waiter

    def fail(self, error: Error) -> None:
        """End the call with an error and close: what comes after an unread answer cannot be told apart."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
        self.abort()

    def abort(self) -> None:
        """Close now, without waiting for bytes in either direction."""
        self.waiter = None
        if self.transport is not None:
            self.transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # a stream protocol gets a stream transport
        """Start with an empty parser."""
        self.transport = transport
        self._parser = httptools.HttpResponseParser(self)
        self._poll.register(transport.get_extra_info("socket").fileno(), _GONE if self._pool.address.tls else _READABLE)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self.waiter is None or self._parser is None:
            self.abort()  # nothing was asked: a second answer would be taken for the next call's
            return
        if not self._complete:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.fail(Error(Code.INTERNAL, f"Reading the answer of '{self._pool.address.text}' failed: it is not HTTP/1.1."))
            return
        if not self._complete and self._head_bytes > self._pool.limits.max_header_bytes:
            self._too_large("headers", self._pool.limits.max_header_bytes)

    def eof_received(self) -> None:
        """End an answer that lasts until the connection closes (RFC 9112 §6.3)."""
        if self.waiter is not None and self._complete and not self._framed:
            self._keep = False
            self.on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the pool; a call in flight ends as unknown."""
        self._parser = None
        self._pool.lost(self)
        if self.waiter is not None:
            text = f"'{self._pool.address.text}' closed the connection before it answered: the call may or may not have run."
            self.fail(lost_error(exc, self._pool.address.text, text))

    # --- httptools callbacks

    def on_message_begin(self) -> None:
        """Forget the previous answer."""
        self._headers = []
        self._body = []
        self._size = 0
        self._complete = self._framed = False
        if self.waiter is None:
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers after the body are not ours to read."""
        if self._complete:
            return
        key = name.decode("latin-1").lower()
        self._headers.append((key, value.decode("latin-1").strip()))
        if key == "content-length":
            self._framed = True
            if int(value) > self._pool.max_bytes:
                self._too_large("message", self._pool.max_bytes)
        elif key == "transfer-encoding":
            self._framed = b"chunked" in value.lower()

    def on_headers_complete(self) -> None:
        """Note how the answer ends."""
        if self._parser is None:
            return
        self._status = self._parser.get_status_code()
        self._keep = self._parser.should_keep_alive()
        self._complete = True
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        """Keep a piece, up to the limit."""
        if self.waiter is None:
            return
        self._size += len(body)
        self._body.append(body)
        if self._size > self._pool.max_bytes:
            self._too_large("message", self._pool.max_bytes)

    def on_message_complete(self) -> None:
        """Hand the answer over and free the connection."""
        waiter = self.waiter
        if waiter is None or self._status < _INFORMATIONAL:
            return
        self.waiter = None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        if not waiter.done():
            waiter.set_result(Answer(self._status, self._headers, body))
        transport = self.transport
        # An early answer to a request that is not written out yet leaves half a request behind.
        if self._keep and transport is not None and not transport.get_write_buffer_size():
            self._pool.release(self)
        else:
            self.abort()

    def _too_large(self, what: str, limit: int) -> None:
        text = f"'{self._pool.address.text}' answered with a {what} above {limit} bytes: ask for less, or raise the limit."
        self.fail(Error(Code.RESOURCE_EXHAUSTED, text))


class Pool:
    """Connections to one address, callers served first come first served."""

    def __init__(self, address: Address, *, clock: Clock, limits: PoolLimits, max_bytes: int, tls: ssl.SSLContext | None) -> None:
        self.address = address
        self.limits = limits
        self.max_bytes = max_bytes
        self._clock = clock
        self._tls = (tls or client_context(Tls())) if address.tls else None
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._waiters: deque[_Waiter] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._timer: Timer | None = None
        self._due = math.inf
        self._closed = False
        self._empty: asyncio.Future[None] | None = None

    async def send(self, request: bytes, deadline: float) -> Answer:
        """Send a request on a free connection, a new one, or the next that gets free."""
        now = self._clock.monotonic()
        if deadline <= now:
            raise self._late()
        if deadline < self._due:
            self._arm(deadline, now)
        connection = self._take()
        while connection is None:
            connection = await self._wait(deadline)
            if not connection.usable():
                connection.abort()
                connection = self._take()
        try:
            return await connection.exchange(request, deadline)
        except asyncio.CancelledError:
            connection.abort()
            raise

    def release(self, connection: Connection) -> None:
        """Take back a connection whose answer is complete."""
        connection.idle_since = now = self._clock.monotonic()
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.future.done():
                waiter.future.set_result(connection)
                return
        self._idle.append(connection)
        if (limit := now + self.limits.idle_timeout) < self._due:
            self._arm(limit, now)

    def lost(self, connection: Connection) -> None:
        """Forget a closed connection and open others for those who wait."""
        self._all.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)
        self._grow()
        self._check_empty()

    async def aclose(self) -> None:
        """Close everything; calls in flight end with UNAVAILABLE. Idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._due = None, math.inf
        for task in self._opening:
            task.cancel()
        error = Error(Code.UNAVAILABLE, f"The channel to '{self.address.text}' was closed: the call may or may not have run.")
        while self._waiters:
            self._refuse(self._waiters.popleft(), error)
        for connection in list(self._all):
            connection.fail(error)
        if self._all or self._opening:
            self._empty = self._empty or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._empty)

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()  # the warmest, so that the others may expire
            if connection.usable():
                return connection
            connection.abort()
        return None

    async def _wait(self, deadline: float) -> Connection:
        if self._closed:
            raise Error(Code.UNAVAILABLE, f"The channel to '{self.address.text}' is closed: make a new one.")
        waiter = _Waiter(asyncio.get_running_loop().create_future(), deadline)
        self._waiters.append(waiter)
        self._grow()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if not waiter.future.cancelled() and waiter.future.exception() is None:
                self.release(waiter.future.result())
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiters.remove(waiter)

    def _grow(self) -> None:
        if self._closed:
            return
        room = self.limits.max_connections - len(self._all) - len(self._opening)
        for _ in range(min(room, len(self._waiters) - len(self._opening))):
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opened)

    async def _open(self) -> None:
        """Connect for whoever waits longest; the failure is theirs as well."""
        loop, address = asyncio.get_running_loop(), self.address
        try:
            async with asyncio.timeout(self.limits.connect_timeout):
                server_name = address.host if self._tls else None
                make = loop.create_connection(
                    lambda: Connection(self), address.host, address.port, ssl=self._tls, server_hostname=server_name
                )
                _, connection = await make
        except OSError as error:
            if self._waiters:
                self._refuse(self._waiters.popleft(), unreached(error, address.text))
            return
        self._all.add(connection)
        if self._closed:
            connection.abort()
        else:
            self.release(connection)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            while self._waiters:
                self._waiters.popleft().future.set_exception(bug)
        self._grow()
        self._check_empty()

    def _check_empty(self) -> None:
        if self._empty is not None and not self._empty.done() and not self._all and not self._opening:
            self._empty.set_result(None)

    def _refuse(self, waiter: _Waiter, error: Error) -> None:
        if not waiter.future.done():
            waiter.future.set_exception(error)

    def _late(self) -> Error:
        return Error(Code.DEADLINE_EXCEEDED, f"'{self.address.text}' did not answer before the deadline: the call may or may not have run.")

    # --- the one timer

    def _arm(self, due: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._clock.call_later(max(0.0, due - now), self._sweep)

    def _sweep(self) -> None:
        """End what is late, close what is idle, and set the timer to what comes next."""
        self._timer, self._due = None, math.inf
        now, due = self._clock.monotonic(), math.inf
        for connection in list(self._all):
            busy = connection.waiter is not None
            limit = connection.deadline if busy else connection.idle_since + self.limits.idle_timeout
            if limit > now:
                due = min(due, limit)
            elif busy:
                connection.fail(self._late())
            else:
                connection.abort()
        for waiter in self._waiters:
            if waiter.deadline > now:
                due = min(due, waiter.deadline)
            else:
                self._refuse(waiter, self._late())
        if due < self._due:
            self._arm(due, now)


class HttpTransport:
    """HTTP requests over one pool; also pyqwest's `Transport`. Raises `linkspan.errors.Error`, and lets `CancelledError` pass."""

    def __init__(
        self,
        address: str,
        *,
        clock: Clock,
        limits: PoolLimits | None = None,
        max_response_bytes: int = MAX_MESSAGE_BYTES,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.address = parse_address(address)
        self._clock = clock
        self._pool = Pool(self.address, clock=clock, limits=limits or PoolLimits(), max_bytes=max_response_bytes, tls=tls)
        self._heads: dict[str, str] = {}

    async def send(self, request: bytes, timeout: float) -> Answer:
        """Send a whole request as it is written, and return its answer within `timeout` seconds."""
        return await self._pool.send(request, self._clock.monotonic() + timeout)

    async def execute(self, request: Request) -> Response:
        """Send pyqwest's form of a request; its deadline is its own `connect-timeout-ms`, so that both ends hold to the same."""
        from pyqwest import Headers, Response  # noqa: PLC0415 - unary calls do without

        data, timeout = self._render(request)
        answer = await self.send(data, timeout)
        return Response(status=answer.status, headers=Headers(answer.headers), content=answer.body)

    async def aclose(self) -> None:
        """Close the pool. Idempotent."""
        await self._pool.aclose()

    def _render(self, request: Request) -> tuple[bytes, float]:
        """Return the request as it is written, and its timeout in seconds."""
        body = request.content
        if not isinstance(body, bytes):
            raise Error(Code.UNIMPLEMENTED, "Streaming a request body failed: this transport carries unary calls only.")
        url, timeout = request.url, math.inf
        head = self._heads.get(url)
        if head is None:
            path = urlsplit(url).path
            head = self._heads[url] = f"{request.method} {path} HTTP/1.1\r\nhost: {self.address.authority}\r\n"
        lines = [head]
        for name, value in request.headers.items():
            if name == TIMEOUT:
                timeout = int(value) / 1000
            elif name in TRANSPORT_HEADERS:
                raise Error(Code.INVALID_ARGUMENT, f"Sending header '{name}' failed: the transport sets it, leave it out.")
            elif name in _CODINGS and value == "identity":
                continue  # identity is what no header means
            lines.append(f"{name}: {value}\r\n")
        lines.append(f"content-length: {len(body)}\r\n\r\n")
        try:
            return "".join(lines).encode("ascii") + body, timeout
        except UnicodeEncodeError as error:
            raise Error(Code.INVALID_ARGUMENT, "Sending a header failed: header values are ASCII, encode others.") from error
