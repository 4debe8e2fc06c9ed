"""The direct path as an ASGI application over connectrpc: everything that is not a plain unary call takes this way."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from connectrpc.code import Code as WireCode
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectASGIApplication, Endpoint as WireEndpoint

from linkspan.errors import Code, Error
from linkspan.streaming import lone
from linkspan.transport.endpoint import ORIGIN, OUTSIDE, Endpoint, Inbound
from linkspan.transport.get import CachedReply, unfit_query
from linkspan.transport.guard import GONE
from linkspan.transport.rest_server import RestRoutes
from linkspan.transport.unary import MAX_MESSAGE_BYTES
from linkspan.transport.wire import (
    CONTENT_LENGTH,
    BinaryCodec,
    CappedGzip,
    JsonCodec,
    connect_error,
    error_body,
    error_from,
    http_status,
    registry_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence

    from connectrpc.request import RequestContext

    from linkspan.operation import Operation
    from linkspan.transport.endpoint import Answers, StreamEndpoint

    Scope: TypeAlias = MutableMapping[str, Any]
    Message: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["Application"]

_STREAM_TYPES: Final = {
    (False, False): StreamType.UNARY,
    (False, True): StreamType.SERVER_STREAM,
    (True, False): StreamType.CLIENT_STREAM,
    (True, True): StreamType.BIDI_STREAM,
}
_CODINGS: Final = frozenset({b"accept-encoding", b"connect-accept-encoding", b"grpc-accept-encoding"})
_TRAILERS: Final = "http.response.trailers"
_NOISE: Final = frozenset({b"vary", b"content-encoding"})  # nothing is compressed, so neither says anything


def _method_of(operation: Operation[Any, Any]) -> MethodInfo[Any, Any]:
    """Return connectrpc's form of an operation; what reads and does not stream may be asked by GET as well."""
    gets = operation.kind == "query" and not (operation.client_streaming or operation.server_streaming)
    return MethodInfo(
        name=operation.rpc_name,
        service_name=operation.service_name,
        input=operation.request,
        output=operation.response,
        idempotency_level=IdempotencyLevel.NO_SIDE_EFFECTS if gets else IdempotencyLevel.UNKNOWN,
        stream_type=_STREAM_TYPES[operation.client_streaming, operation.server_streaming],
    )


def _inbound(context: RequestContext[Any, Any]) -> Inbound:
    left = context.timeout_ms
    seconds = None if left is None else left / 1000
    return Inbound(dict(context.request_headers.items()), seconds, context.client_address or "", ORIGIN.get())


def _wire_endpoint(endpoint: Endpoint | StreamEndpoint, answers: Answers) -> WireEndpoint[Any, Any]:
    if not isinstance(endpoint, Endpoint):
        return _wire_stream(endpoint, answers)

    async def answer(request: Any, context: RequestContext[Any, Any]) -> Any:
        try:
            return await answers.answer(endpoint, request, _inbound(context))
        except Error as error:
            raise _told(error, endpoint, answers) from None

    return WireEndpoint.unary(_method_of(endpoint.operation), answer)


def _wire_stream(endpoint: StreamEndpoint, answers: Answers) -> WireEndpoint[Any, Any]:
    operation = endpoint.operation

    async def stream(requests: AsyncIterator[Any], context: RequestContext[Any, Any]) -> AsyncGenerator[Any, None]:
        async with aclosing(answers.stream(endpoint, requests, _inbound(context))) as responses:
            try:
                async for response in responses:
                    yield response
            except Error as error:
                raise _told(error, endpoint, answers) from None

    def watch(request: Any, context: RequestContext[Any, Any]) -> AsyncIterator[Any]:
        return stream(lone(request), context)

    def chat(requests: AsyncIterator[Any], context: RequestContext[Any, Any]) -> AsyncIterator[Any]:
        return stream(_coded(requests, endpoint), context)

    async def upload(requests: AsyncIterator[Any], context: RequestContext[Any, Any]) -> Any:
        async with aclosing(stream(_coded(requests, endpoint), context)) as responses:
            return await anext(responses)

    method = _method_of(operation)
    if not operation.client_streaming:
        return WireEndpoint.server_stream(method, watch)
    return WireEndpoint.bidi_stream(method, chat) if operation.server_streaming else WireEndpoint.client_stream(method, upload)


async def _coded(requests: AsyncIterator[Any], endpoint: StreamEndpoint) -> AsyncGenerator[Any, None]:
    """Yield the requests; what is wrong with them reaches the handler as our own error."""
    try:
        async for request in requests:
            yield request
    except ConnectError as error:
        raise error_from(error, registry_of(endpoint.operation.request)) from None


def _told(error: Error, endpoint: Endpoint | StreamEndpoint, answers: Answers) -> ConnectError:
    try:
        return connect_error(error)
    except Exception as bug:  # noqa: BLE001 - a detail with wrong values: the handler's fault, like what else it may raise
        return connect_error(answers.bug(endpoint.operation.path, bug))


class _Connect(ConnectASGIApplication[None]):
    """connectrpc's application over endpoints that exist already."""

    def __init__(self, endpoints: Sequence[Endpoint | StreamEndpoint], answers: Answers, max_message_bytes: int) -> None:
        known: Mapping[str, WireEndpoint[Any, Any]] = {each.operation.path: _wire_endpoint(each, answers) for each in endpoints}

        def endpoints_of(_service: None) -> Any:
            return known

        super().__init__(  # pyright: ignore[reportUnknownMemberType] # connectrpc's own generics are partial
            service=None,
            endpoints=endpoints_of,
            read_max_bytes=max_message_bytes,
            compressions=(CappedGzip(),),
            codecs=tuple(codec(WireCode.INVALID_ARGUMENT, answers.unwritable) for codec in (BinaryCodec, JsonCodec)),
        )

    @property
    def path(self) -> str:
        """Where it is mounted."""
        return "/"


class Application:
    """What uvicorn runs: refuses what connectrpc would trip over, and passes the rest on."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint | StreamEndpoint],
        answers: Answers,
        *,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        extra_app: ASGIApp | None = None,
    ) -> None:
        self._operations = {endpoint.operation.path: endpoint.operation for endpoint in endpoints}
        self._paths = frozenset(self._operations)
        self._streams = frozenset(endpoint.operation.path for endpoint in endpoints if not isinstance(endpoint, Endpoint))
        self._services = frozenset(path.rpartition("/")[0] for path in self._paths)
        self._rest = RestRoutes(endpoints, answers, max_message_bytes=max_message_bytes)
        self._connect: Any = _Connect(endpoints, answers, max_message_bytes)
        self._max_bytes = max_message_bytes
        self._extra_app = extra_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (https://asgi.readthedocs.io/en/latest/specs/main.html)."""
        path = scope["path"]
        if path not in self._paths:
            ORIGIN.set(scope.get("extensions", {}).get(ORIGIN.name, OUTSIDE))
            if await self._rest.serve(scope, receive, send):
                return
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
        ORIGIN.set(scope.get("extensions", {}).get(ORIGIN.name, OUTSIDE))
        if path in self._streams:
            await self._stream(scope, receive, _Reply(send))
        elif scope["method"] == "GET":
            await self._get(scope, receive, send)
        else:
            await self._connect(scope, receive, _Reply(send))

    async def _get(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a query that stands in the URL."""
        wrong = unfit_query(scope["query_string"])
        known = next((value.decode("ascii") for name, value in scope["headers"] if name == b"if-none-match"), "")
        reply = CachedReply(send, self._operations[scope["path"]], known)
        if wrong:
            await _refuse(reply, 400, Code.INVALID_ARGUMENT, wrong)
        else:
            await self._connect(scope, receive, _Reply(reply))

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a stream; our own server says when its peer has gone, which a handler that only yields would not notice."""
        task, gone = asyncio.current_task(), False

        def leave() -> None:
            nonlocal gone
            gone = task is not None and task.cancel()

        scope[GONE] = leave
        try:
            await self._connect(scope, receive, send)
        except asyncio.CancelledError:
            if not gone or task is None or task.uncancel():
                raise

    def _unfit(self, scope: Scope) -> tuple[int, Code, str] | None:
        """Return why a request is refused before its body is read."""
        coded = False
        for name, value in scope["headers"]:
            if not value.isascii():  # names are: the parser takes tokens only
                return 400, Code.INVALID_ARGUMENT, "Reading a header failed: header values are ASCII, encode others."
            if name == CONTENT_LENGTH:
                if int(value) > self._max_bytes and scope["path"] not in self._streams:  # their messages are bounded, each
                    text = f"Request of {int(value)} bytes exceeds {self._max_bytes}: send smaller messages."
                    return http_status(Code.RESOURCE_EXHAUSTED), Code.RESOURCE_EXHAUSTED, text
            elif name == b"content-type":
                if _is_grpc(value) and not _sends_trailers(scope):
                    return _no_grpc(scope)
            elif name in _CODINGS:
                coded = True
        if coded:  # responses are not compressed
            scope["headers"] = [header for header in scope["headers"] if header[0] not in _CODINGS]
        return None


def _is_grpc(content_type: bytes) -> bool:
    return content_type.startswith(b"application/grpc") and not content_type.startswith(b"application/grpc-web")


def _sends_trailers(scope: Scope) -> bool:
    """Tell whether the server can end a response as gRPC does (https://asgi.readthedocs.io/en/latest/extensions.html)."""
    return _TRAILERS in (scope.get("extensions") or ())


def _no_grpc(scope: Scope) -> tuple[int, Code, str]:
    """Return why a gRPC call cannot be answered, before its handler runs. gRPC clients read a 404 as UNIMPLEMENTED."""
    if scope.get("http_version", "1.1").startswith("1"):
        return 415, Code.UNIMPLEMENTED, "gRPC needs HTTP/2: call this port by Connect, as application/proto or application/json."
    text = (
        "gRPC needs trailers, which this server does not send: run the app under one that does, or give it a port for gRPC (LINKSPAN_GRPC)."
    )
    return 404, Code.UNIMPLEMENTED, text


class _Reply:
    """`send` that gives a response in one piece its content length."""

    __slots__ = ("_send", "_start")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not message.get("trailers"):
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
