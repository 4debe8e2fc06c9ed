"""uvicorn's HTTP/1.1 protocol with the bounds that it lacks: header size, time to send a request, bytes thrown away."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from linkspan.errors import Code
from linkspan.identity import Certificate
from linkspan.transport.endpoint import ORIGIN, OUTSIDE, Origin
from linkspan.transport.unary import error_body

if TYPE_CHECKING:
    from collections.abc import Sized

    from uvicorn import Config
    from uvicorn._types import ASGI3Application
    from uvicorn.server import ServerState

    from linkspan.ports import Clock

__all__ = ["GONE", "GuardLimits", "GuardedProtocol", "Watch"]

GONE: Final = "linkspan.gone"
"""Key in an ASGI scope: what to call when the peer has gone, for a handler that neither reads requests nor can tell by writing."""

_MOST_WAITING: Final = 16
"""Pipelined requests that are read ahead; the rest of what came with the last of them is kept as well."""


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """What a caller may take of the server before it is served (bytes, seconds)."""

    max_header_bytes: int = 32 * 1024
    max_discard_bytes: int = 4 * 1024 * 1024
    header_timeout: float = 10.0
    request_timeout: float = 30.0
    first_request_timeout: float = 75.0
    streams: frozenset[bytes] = frozenset()
    """Paths whose requests may take as long as they like: their messages are bounded one by one."""


class Watch:
    """The open connections of a server, and how to wait until they are gone."""

    def __init__(self, clock: Clock) -> None:
        self.connections: set[GuardedProtocol] = set()
        self._clock = clock
        self._gone: asyncio.Future[None] | None = None

    def lost(self, connection: GuardedProtocol) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        if not self.connections and self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def check(self) -> None:
        """Close connections whose peers are too slow."""
        now = self._clock.monotonic()
        for connection in list(self.connections):
            connection.check(now)

    async def until_gone(self, timeout: float) -> None:
        """Wait until no connection is open, at most `timeout` seconds."""
        if not self.connections or timeout <= 0:
            return
        self._gone = gone = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(timeout, gone.cancel)
        try:
            await asyncio.wait([gone])
        finally:
            timer.cancel()


class _BoundedFlow(FlowControl):
    """uvicorn's flow control, which never reads on while too many requests wait their turn, whoever asks."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on, if there is room."""
        if len(self._waiting) < _MOST_WAITING:
            super().resume_reading()


class GuardedProtocol(HttpToolsProtocol):
    """A connection that is closed when its peer sends too much, too slowly, or nothing."""

    def __init__(self, config: Config, state: ServerState, *, clock: Clock, limits: GuardLimits, watch: Watch) -> None:
        super().__init__(config, state, {})
        self._clock = clock
        self.limits = limits
        self._watch = watch
        self._served = self._refused = False
        self._quiet_since = 0.0
        self.reading_since = 0.0
        self.current: RequestResponseCycle | None = None
        self.origin = OUTSIDE
        self.knows_callers = self._stranger = False
        self._in_head = True
        self._head_bytes = self._chunk_bytes = 0
        self._discarded = 0
        self._refusal = (HTTPStatus.BAD_REQUEST, Code.INVALID_ARGUMENT, "Reading the request failed: it is not valid HTTP/1.1.")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream protocol gets a stream transport
        """Note when it began."""
        super().connection_made(transport)
        self.flow = _BoundedFlow(transport, self.pipeline)
        self._watch.connections.add(self)
        self._quiet_since = self._clock.monotonic()
        facts = transport.get_extra_info("peercert")
        if facts:
            self.origin = Origin(Certificate.read(facts))
        self._stranger = self.knows_callers and not facts

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request in hand, which uvicorn forgets when others wait behind it, and the server, which may wait for its end."""
        super().connection_lost(exc)
        self.pipeline.clear()
        current = self.current
        if current is not None and not current.response_complete:
            current.disconnected = True
            current.message_event.set()
            gone = getattr(current, "scope", {}).get(GONE)
            if gone is not None:
                gone()
        self._watch.lost(self)

    def data_received(self, data: bytes) -> None:
        """Parse, unless the headers never end."""
        if self._stranger:
            self._refuse_stranger()
            return
        self._chunk_bytes = len(data)
        if self._in_head:
            self._head_bytes += self._chunk_bytes
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.max_header_bytes and not self.transport.is_closing():
            self._too_much()
            self.send_400_response("")
        elif self.pipeline and not self.transport.is_closing():
            self._bound_pipeline()

    def on_message_begin(self) -> None:
        """Start the clock of a request."""
        self.begin_message()
        self.reading_since = self._clock.monotonic()

    def on_headers_complete(self) -> None:
        """Serve the request if its headers are within bounds; an exception here makes the parser stop and refuse."""
        limit = self.limits.max_header_bytes
        # What came so far may hold a body as well, so it is counted exactly only where it matters.
        if (
            max(self._head_bytes, self._chunk_bytes) > limit
            and len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > limit
        ):
            self._too_much()
            raise ValueError("headers too large")
        self._in_head = False
        self._served = True
        if self.url in self.limits.streams:
            self.reading_since = 0.0
        self.begin_request()

    def begin_message(self) -> None:
        """Forget the previous request."""
        super().on_message_begin()

    def begin_request(self) -> None:
        """Serve a request whose headers are complete and within bounds."""
        if self.origin is not OUTSIDE:
            scope: Any = self.scope
            scope["extensions"] = {**scope.get("extensions", {}), ORIGIN.name: self.origin}
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Throw away what follows an early answer, up to a bound, so that the connection can be used again."""
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > self.limits.max_discard_bytes:
                self.transport.abort()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the clock."""
        super().on_message_complete()
        self.reading_since = 0.0
        self._in_head = True
        self._head_bytes = self._discarded = 0

    def on_response_complete(self) -> None:
        """Go on to the next request. As uvicorn does, without a timer per response, and with a bound on requests that wait."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self._refused:
            self.send_400_response("")
            return
        self._quiet_since = self._clock.monotonic()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self.current = cycle
        super()._start_asgi_task(cycle, app)

    def _bound_pipeline(self) -> None:
        """Read on while few whole requests wait: only a connection that is read tells that its peer has gone."""
        if self._in_head and len(self.pipeline) < _MOST_WAITING:
            self.flow.resume_reading()
        else:
            self.flow.pause_reading()

    def send_400_response(self, msg: str) -> None:
        """Answer what never became a request, as a Connect error, and close; a whole request before it gets its own answer first."""
        del msg
        if self.transport.is_closing():
            return
        current = self.current
        if current is not None and not current.response_complete and not current.more_body:
            self._refused = True  # now, its caller would take the refusal for its answer, although it may have run
            self.pipeline.clear()
            self.flow.pause_reading()
            return
        status, code, text = self._refusal
        body = error_body(code, text)
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    def check(self, now: float) -> None:
        """Close the connection if its peer is too slow. Called about once a second."""
        if self.reading_since:
            if self.flow.read_paused:  # we do not read, so the peer cannot be slow
                return
            limit = self.limits.header_timeout if self._in_head else self.limits.request_timeout
            if now - self.reading_since > limit:
                self._refuse_slow()
            return
        limit = self.timeout_keep_alive if self._served else self.limits.first_request_timeout
        if now - self._quiet_since > limit and (self.current is None or self.current.response_complete):
            self.transport.close()

    def _too_much(self) -> None:
        text = f"Request headers exceed {self.limits.max_header_bytes} bytes: send fewer or shorter ones."
        self._refusal = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, Code.RESOURCE_EXHAUSTED, text)

    def _refuse_stranger(self) -> None:
        text = "This server takes only callers with a client certificate: present one that its client CA signed."
        self._refusal = (HTTPStatus.UNAUTHORIZED, Code.UNAUTHENTICATED, text)
        self.send_400_response("")

    def _refuse_slow(self) -> None:
        text = "The request did not arrive in time: send it without pauses."
        self._refusal = (HTTPStatus.REQUEST_TIMEOUT, Code.DEADLINE_EXCEEDED, text)
        # Where something of an answer was written, a second one would be taken for another request's.
        if self._served and self.cycle.response_started and not (self._in_head and self.cycle.response_complete):
            self.transport.abort()
        else:
            self.send_400_response("")
