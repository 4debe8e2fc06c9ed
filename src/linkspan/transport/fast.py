"""Plain unary Connect calls served in the protocol class, without an ASGI scope, cycle or connectrpc (ADR 6).

A call is recognised by its headers alone. Whatever is unusual about it (a GET, a query string, chunks, compression, odd headers,
a wrong timeout, an unknown path) is left to the ASGI application, on the same connection and in the same order.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from linkspan.errors import Code, Error
from linkspan.transport.endpoint import LATE, Inbound
from linkspan.transport.guard import GuardedProtocol
from linkspan.transport.unary import FORMS, TIMEOUT, TIMEOUT_DIGITS, UNWRITABLE, error_body, http_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from uvicorn import Config
    from uvicorn.server import ServerState

    from linkspan.ports import Clock, Timer
    from linkspan.transport.endpoint import Answers, Endpoint, Origin
    from linkspan.transport.guard import GuardLimits, Watch
    from linkspan.transport.unary import Form

__all__ = ["FastProtocol", "UnaryCalls"]

_UNUSUAL: Final = frozenset({"transfer-encoding", "expect", "upgrade"})
_FINEST_SWEEP: Final = 0.001  # seconds: deadlines closer to each other are swept together
_NOBODY_WAITS: Final = asyncio.Event()
_HEADS: Final = {form: b"%bcontent-type: %b\r\ncontent-length: " % (STATUS_LINE[200], kind.encode()) for kind, form in FORMS.items()}
_CLOSE: Final = b"connection: close\r\n"


class Call(RequestResponseCycle):
    """A unary call, in the place of uvicorn's request cycle: uvicorn reads and sets these attributes, and calls nothing."""

    message_event = _NOBODY_WAITS
    disconnected = response_started = response_complete = late = False
    more_body = True
    refusal: Error | None = None
    task: asyncio.Task[None] | None = None

    def __init__(self, endpoint: Endpoint, form: Form, headers: dict[str, str], deadline: float, *, keep_alive: bool) -> None:
        self.endpoint = endpoint
        self.form = form
        self.headers = headers
        self.deadline = deadline
        self.keep_alive = keep_alive
        self.pieces: list[bytes] = []


class UnaryCalls:
    """What a server's connections share: the endpoints by path, how they are answered, and one timer for all deadlines.

    `unusual` are the headers with which a call is left to the ASGI application.
    """

    def __init__(self, endpoints: Iterable[Endpoint], answers: Answers, *, clock: Clock, max_bytes: int, prefix: str = "") -> None:
        self.endpoints = {f"{prefix}{endpoint.operation.path}".encode(): endpoint for endpoint in endpoints}
        self.max_bytes = max_bytes
        self.unusual = _UNUSUAL
        self.connections: set[FastProtocol] = set()
        self._answers = answers
        self._clock = clock
        self._timer: Timer | None = None
        self._due = math.inf

    async def answered(self, call: Call, peer: str, origin: Origin) -> bytes:
        """Run the call and return its whole response. Raises `CancelledError` only."""
        endpoint, form = call.endpoint, call.form
        try:
            left = None if call.deadline == math.inf else call.deadline - self._clock.monotonic()
            pieces = call.pieces
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            request = form.read(body, endpoint.operation.request, Code.INVALID_ARGUMENT)
            response = await self._answers.answer(endpoint, request, Inbound(call.headers, left, peer, origin))
            try:
                body = form.write(response)
            except UNWRITABLE as error:
                raise self._answers.unwritable(response, error) from None
        except Error as error:
            return self.refused(call, error)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - what a decoder in Rust may raise, too; without an answer the peer would hang
            return self.refused(call, self._answers.bug(endpoint.operation.path, error))
        return b"%b%d\r\n%b\r\n%b" % (_HEADS[form], len(body), b"" if call.keep_alive else _CLOSE, body)

    def refused(self, call: Call, error: Error) -> bytes:
        """Return the response that says what went wrong."""
        try:
            body = error_body(error.code, error.message, error.details)
        except Exception as bug:  # noqa: BLE001 - a detail with wrong values: the handler's fault, like what else it may raise
            error = self._answers.bug(call.endpoint.operation.path, bug)
            body = error_body(error.code, error.message)
        head = STATUS_LINE[http_status(error.code)] + b"content-type: application/json\r\ncontent-length: "
        return b"%b%d\r\n%b\r\n%b" % (head, len(body), b"" if call.keep_alive else _CLOSE, body)

    def late(self, call: Call) -> bytes:
        """Return the response of a call whose deadline has passed."""
        return self.refused(call, Error(Code.DEADLINE_EXCEEDED, LATE))

    def watch(self, deadline: float) -> None:
        """See that the timer goes off by then."""
        if deadline < self._due:
            self.close()
            self._due = deadline
            delay = deadline - self._clock.monotonic()
            self._timer = self._clock.call_later(max(_FINEST_SWEEP, delay), self._sweep)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._due = None, math.inf

    def _sweep(self) -> None:
        self._timer, self._due = None, math.inf
        now = self._clock.monotonic()
        self.watch(min((connection.expire(now) for connection in list(self.connections)), default=math.inf))


class FastProtocol(GuardedProtocol):
    """A guarded connection that answers plain unary calls by itself and gives everything else to uvicorn."""

    def __init__(self, config: Config, state: ServerState, *, clock: Clock, limits: GuardLimits, watch: Watch, calls: UnaryCalls) -> None:
        super().__init__(config, state, clock=clock, limits=limits, watch=watch)
        self._calls = calls
        self._peer = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream protocol gets a stream transport
        """Note who calls."""
        super().connection_made(transport)
        self._calls.connections.add(self)
        self._peer = f"{self.client[0]}:{self.client[1]}" if self.client else ""

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the call in hand: nobody waits for its answer."""
        self._calls.connections.discard(self)
        super().connection_lost(exc)
        call = self.current
        if isinstance(call, Call) and call.task is not None and not call.response_complete:
            self._cancel(call, call.task)

    def begin_message(self) -> None:
        """Start a request without uvicorn's scope, which few need."""
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self.headers.append((name.lower(), value))

    def begin_request(self) -> None:
        """Take the request if it is a plain unary call, else make up for the scope."""
        call = self._recognised()
        if call is None:
            url, headers = self.url, self.headers
            HttpToolsProtocol.on_message_begin(self)
            self.url = url
            for name, value in headers:
                HttpToolsProtocol.on_header(self, name, value)
            super().begin_request()
            return
        free = self.current is None or self.current.response_complete
        self.cycle = call
        if free:
            self._take(call)
        else:
            waiting: Any = (call, None)  # no application: `_start_asgi_task` knows a call
            self.pipeline.appendleft(waiting)

    def on_body(self, body: bytes) -> None:
        """Keep a piece; the length is within bounds, or the call would not have been taken."""
        call = self.cycle
        if isinstance(call, Call) and not call.response_complete:
            call.pieces.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Run the call if it is its turn."""
        super().on_message_complete()
        call = self.cycle
        if call is not self.current or not isinstance(call, Call):
            return
        if not call.response_complete:
            self._run(call)
        elif not call.keep_alive:
            self.transport.close()

    def expire(self, now: float) -> float:
        """End the call in hand if its deadline has passed, else return when that will be."""
        call = self.current
        if not isinstance(call, Call) or call.response_complete or call.late:
            return math.inf
        if call.deadline > now:
            return call.deadline
        call.late = True
        if call.task is None:  # its body is still on the way: what comes of it is thrown away
            self._finish(call, self._calls.late(call))
        else:
            self._cancel(call, call.task)
        return math.inf

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if isinstance(cycle, Call):
            self._take(cycle)
        else:
            super()._start_asgi_task(cycle, app)

    def _recognised(self) -> Call | None:
        """Return the call that the headers announce, None if anything about it is unusual."""
        parser: Any = self.parser
        endpoint = self._calls.endpoints.get(self.url)
        if endpoint is None or parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
            return None
        try:
            headers = {name.decode("ascii"): value.decode("ascii") for name, value in self.headers}
        except UnicodeDecodeError:
            return None
        form, timeout = FORMS.get(headers.get("content-type", "")), headers.get(TIMEOUT)
        if form is None or len(headers) != len(self.headers) or not _plain(headers, self._calls.unusual):
            return None
        deadline = math.inf if timeout is None else self.reading_since + int(timeout) / 1000
        headers.pop("accept-encoding", None)  # responses are not compressed
        call = Call(endpoint, form, headers, deadline, keep_alive=parser.should_keep_alive())
        size = int(headers["content-length"])
        return call if size <= self._calls.max_bytes else self._too_large(call, size)

    def _too_large(self, call: Call, size: int) -> Call:
        text = f"Request of {size} bytes exceeds {self._calls.max_bytes}: send smaller messages."
        call.refusal = Error(Code.RESOURCE_EXHAUSTED, text)
        call.keep_alive = call.keep_alive and size <= self.limits.max_discard_bytes
        return call

    def _take(self, call: Call) -> None:
        """Make it the call in hand."""
        self.current = call
        if call.refusal is not None:
            self._finish(call, self._calls.refused(call, call.refusal))
            return
        self._calls.watch(call.deadline)
        if not call.more_body:
            self._run(call)

    def _run(self, call: Call) -> None:
        call.task = task = self.loop.create_task(self._answer(call))
        self.tasks.add(task)

    async def _answer(self, call: Call) -> None:
        task = call.task
        try:
            response = await self._calls.answered(call, self._peer, self.origin)
            if self.flow.write_paused:
                await self.flow.drain()
        finally:
            if task is not None:
                self.tasks.discard(task)
        self._finish(call, response)

    def _finish(self, call: Call, response: bytes) -> None:
        """Write the response and go on to the next request."""
        call.response_started = call.response_complete = True
        if not self.transport.is_closing():
            self.transport.write(response)
            if not call.keep_alive and not call.more_body:  # else closed once the body is thrown away: a reset could take the answer along
                self.transport.close()
        self.on_response_complete()

    def _cancel(self, call: Call, task: asyncio.Task[None]) -> None:
        task.add_done_callback(partial(self._cancelled, call))  # a task that is cancelled before its first step does nothing itself
        task.cancel()

    def _cancelled(self, call: Call, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if call.late and not call.response_complete:
            self._finish(call, self._calls.late(call))


def _plain(headers: Mapping[str, str], unusual: frozenset[str]) -> bool:
    """Tell whether there is nothing about the headers that needs more than reading a body of known length."""
    timeout = headers.get(TIMEOUT, "1")
    return (
        "content-length" in headers
        and headers.get("content-encoding", "identity") == "identity"
        and headers.get("connect-protocol-version", "1") == "1"
        and unusual.isdisjoint(headers)
        and timeout.isdigit()
        and len(timeout) <= TIMEOUT_DIGITS
    )
