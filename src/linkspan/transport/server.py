"""The direct path's server: Connect unary calls on uvicorn's HTTP protocol, in the app's own event loop."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from connectrpc.code import Code as WireCode
from connectrpc.errors import ConnectError
from connectrpc.server import ConnectASGIApplication, Endpoint as WireEndpoint
from uvicorn.server import ServerState

from linkspan.errors import Code, Error, SetupError
from linkspan.transport.connect import method_of
from linkspan.transport.guard import GuardedProtocol, GuardLimits, Watch
from linkspan.transport.wire import (
    CONTENT_LENGTH,
    MAX_MESSAGE_BYTES,
    BinaryCodec,
    CappedGzip,
    JsonCodec,
    connect_error,
    error_body,
    http_status,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping

    from connectrpc.request import RequestContext
    from protobuf import Message as ProtoMessage

    from linkspan.operation import Operation
    from linkspan.ports import Runtime, Timer
    from linkspan.transport.wire import Unwritable

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["DirectServer", "Endpoint", "Inbound"]

logger = logging.getLogger("linkspan.transport")

_NOISE: Final = frozenset({b"vary", b"content-encoding"})  # nothing is compressed, so neither says anything
_BACKLOG: Final = 2048
_SWEEP_SECONDS: Final = 1.0
_CUT_SECONDS: Final = 1.0  # for writing the answer of a call that was cut


@dataclass(frozen=True, slots=True)
class Inbound:
    """What a request brought besides its message. Header names are lower-case; `timeout` is seconds left, None without deadline."""

    headers: Mapping[str, str]
    timeout: float | None
    peer: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An operation and what answers it: returns the response message, or raises `Error`."""

    operation: Operation[Any, Any]
    serve: Callable[[Any, Inbound], Awaitable[Any]]


class DirectServer:
    """Serves endpoints at one host and port; other paths go to `extra_app`, if there is one."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        runtime: Runtime,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        extra_app: ASGIApp | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._runtime = runtime
        self._stopping = False
        self._listener: asyncio.Server | None = None
        self._timer: Timer | None = None
        self._watch = Watch(runtime.clock)
        self._state = ServerState()
        self._limits = GuardLimits(max_discard_bytes=max_message_bytes)
        connect = _Connect({e.operation.path: self._wire_endpoint(e) for e in endpoints}, max_message_bytes, self._unwritable)
        application = _Application(connect, max_message_bytes, extra_app)
        self._config = uvicorn.Config(
            application,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # else any local process could name the caller's address
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,  # longer than clients keep idle connections, so that they close first
        )

    @property
    def address(self) -> str:
        """The address to call, known once started: `http://127.0.0.1:PORT`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Listen. Raises `SetupError` when the port cannot be had."""
        self._config.load()
        try:
            self._listener = await asyncio.get_running_loop().create_server(self._protocol, self._host, self._port, backlog=_BACKLOG)
        except OSError as error:
            text = f"Listening on '{self._host}:{self._port}' failed ({error.strerror}): stop what holds it, or choose another port."
            raise SetupError(text) from error
        self._port = self._listener.sockets[0].getsockname()[1]
        self._sweep()

    async def drain(self, timeout: float) -> None:
        """Stop accepting, let calls in flight finish for `timeout` seconds, then cut what is left (UNAVAILABLE). Idempotent."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.close()
        for connection in list(self._watch.connections):
            connection.shutdown()
        await self._watch.until_gone(timeout)
        self._stopping = True
        for task in list(self._state.tasks):
            task.cancel()
        await self._watch.until_gone(_CUT_SECONDS if self._state.tasks else 0.0)
        for connection in list(self._watch.connections):
            connection.transport.abort()
        await self._watch.until_gone(_CUT_SECONDS)
        if self._timer is not None:
            self._timer.cancel()
        await listener.wait_closed()

    def _protocol(self) -> GuardedProtocol:
        return GuardedProtocol(self._config, self._state, clock=self._runtime.clock, limits=self._limits, watch=self._watch)

    def _sweep(self) -> None:
        self._watch.check()
        self._timer = self._runtime.clock.call_later(_SWEEP_SECONDS, self._sweep)

    def _wire_endpoint(self, endpoint: Endpoint) -> WireEndpoint[Any, Any]:
        operation, serve = endpoint.operation, endpoint.serve
        response_type = operation.response

        async def answer(request: Any, context: RequestContext[Any, Any]) -> Any:
            left = context.timeout_ms
            if left is not None and left <= 0:
                raise ConnectError(WireCode.DEADLINE_EXCEEDED, f"'{operation.path}' got the request after its deadline: give it more time.")
            inbound = Inbound(dict(context.request_headers.items()), None if left is None else left / 1000, context.client_address or "")
            try:
                response = await serve(request, inbound)
                if not isinstance(response, response_type):
                    raise TypeError(f"'{operation.path}' returned a {type(response).__name__}: return a {response_type.__name__}")  # noqa: TRY301
            except Error as error:
                raise connect_error(error) from None
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or not task.cancelling():  # raised by the handler: a bug like any other
                    raise self._bug(operation.path, error) from None
                if self._stopping:
                    raise ConnectError(WireCode.UNAVAILABLE, "The server is shutting down: call another instance.") from None
                raise
            except Exception as error:  # noqa: BLE001 - a handler may raise anything; none of its text may reach the peer
                raise self._bug(operation.path, error) from None
            return response

        return WireEndpoint.unary(method_of(operation), answer)

    def _unwritable(self, response: ProtoMessage, error: Exception) -> ConnectError:
        return self._bug(response.desc().type_name, error)

    def _bug(self, where: str, error: BaseException) -> ConnectError:
        """Log a foreign exception under a new id; the peer gets the id only."""
        error_id = self._runtime.ids.new()
        logger.error("handler failed", exc_info=error, extra={"operation": where, "error_id": error_id})
        return ConnectError(WireCode.INTERNAL, f"Internal error '{error_id}': look it up in the service's log.")


class _Connect(ConnectASGIApplication[None]):
    """connectrpc's application over endpoints that exist already."""

    def __init__(self, endpoints: Mapping[str, WireEndpoint[Any, Any]], max_message_bytes: int, unwritable: Unwritable) -> None:
        self.paths = frozenset(endpoints)

        def endpoints_of(_service: None) -> Any:
            return endpoints

        super().__init__(  # pyright: ignore[reportUnknownMemberType] # connectrpc's own generics are partial
            service=None,
            endpoints=endpoints_of,
            read_max_bytes=max_message_bytes,
            compressions=(CappedGzip(),),
            codecs=(BinaryCodec(WireCode.INVALID_ARGUMENT, unwritable), JsonCodec(WireCode.INVALID_ARGUMENT, unwritable)),
        )

    @property
    def path(self) -> str:
        """Where it is mounted."""
        return "/"


class _Application:
    """What uvicorn runs: refuses what connectrpc would trip over, and passes the rest on."""

    def __init__(self, connect: _Connect, max_message_bytes: int, extra_app: ASGIApp | None) -> None:
        self._paths = connect.paths
        self._services = frozenset(path.rpartition("/")[0] for path in connect.paths)
        self._connect: Any = connect
        self._max_bytes = max_message_bytes
        self._extra_app = extra_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path not in self._paths:
            if self._extra_app is not None and path.rpartition("/")[0] not in self._services:
                await self._extra_app(scope, receive, send)
                return
            text = f"Calling '{path}' failed: this server has no such operation, check service and method name."
            await _refuse(send, 404, Code.UNIMPLEMENTED, text)
            return
        refusal = self._unfit(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        await self._connect(scope, receive, _Reply(send))

    def _unfit(self, scope: Scope) -> tuple[int, Code, str] | None:
        """Return why a request is refused before its body is read."""
        coded = False
        for name, value in scope["headers"]:
            if not value.isascii():  # names are: the parser takes tokens only
                return 400, Code.INVALID_ARGUMENT, "Reading a header failed: header values are ASCII, encode others."
            if name == CONTENT_LENGTH:
                if int(value) > self._max_bytes:
                    text = f"Request of {int(value)} bytes exceeds {self._max_bytes}: send smaller messages."
                    return http_status(Code.RESOURCE_EXHAUSTED), Code.RESOURCE_EXHAUSTED, text
            elif name == b"content-type":
                if value.startswith(b"application/grpc") and not value.startswith(b"application/grpc-web"):
                    return (
                        415,
                        Code.UNIMPLEMENTED,
                        "gRPC needs HTTP/2: call this port by Connect, as application/proto or application/json.",
                    )
            elif name == b"accept-encoding":
                coded = True
        if coded:  # responses are not compressed
            scope["headers"] = [header for header in scope["headers"] if header[0] != b"accept-encoding"]
        return None


class _Reply:
    """`send` that gives a response in one piece its content length."""

    __slots__ = ("_send", "_start")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            if not message.get("more_body"):
                headers = [header for header in start["headers"] if header[0] not in _NOISE]
                headers.append((CONTENT_LENGTH, b"%d" % len(message["body"])))
                start["headers"] = headers
            await self._send(start)
        await self._send(message)


async def _refuse(send: Send, status: int, code: Code, text: str) -> None:
    body = error_body(code, text)
    headers = [(b"content-type", b"application/json"), (CONTENT_LENGTH, b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
