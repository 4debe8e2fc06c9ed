"""gRPC on a port of its own: grpcio's server in the app's event loop, over the same endpoints as the Connect server (ADR 9)."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import grpc

from linkspan.errors import Code, Error, SetupError
from linkspan.transport.endpoint import OUTSIDE, STOPPING, Answers, Inbound, Origin, StreamEndpoint
from linkspan.transport.grpc_status import headers_of, status_of
from linkspan.transport.grpc_tls import certificate_of, server_credentials
from linkspan.transport.unary import MAX_MESSAGE_BYTES, PROTO, UNWRITABLE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
    from typing import TypeAlias

    from linkspan.operation import Operation
    from linkspan.ports import Runtime
    from linkspan.transport.endpoint import Endpoint
    from linkspan.transport.tls import Tls

    ServicerContext: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]
    MethodHandler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
    _Answer: TypeAlias = Callable[[Any, ServicerContext], Awaitable[bytes | None]]

__all__ = ["GrpcServer"]

_CUT_SECONDS: Final = 1.0  # for telling the callers of calls that were cut
_TURNS: Final = 4  # from grpcio's task to ours, to the reader of the stream, to its handler; one to spare
_METADATA_BYTES: Final = 32 * 1024  # as on the HTTP port


class GrpcServer:
    """Serves endpoints to gRPC peers at one host and port. Messages stay bytes in grpcio: our own classes read and write them."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint | StreamEndpoint],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        runtime: Runtime,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        tls: Tls | None = None,
    ) -> None:
        self._host, self._port = host, port
        self._tls = tls if tls is not None and tls.cert is not None else None
        self._answers = Answers(runtime.ids)
        self._calls = _Calls(endpoints, self._answers)
        self._max_bytes = max_message_bytes
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        """The address to call, known once started: `grpc://127.0.0.1:PORT`, or `grpcs://`."""
        return f"{'grpc' if self._tls is None else 'grpcs'}://{self._target}"

    @property
    def _target(self) -> str:
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen. Raises `SetupError` when the port cannot be had."""
        credentials = None if self._tls is None else server_credentials(self._tls)
        self._server = server = grpc.aio.server(handlers=[self._calls], options=self._options())
        try:
            self._port = (
                server.add_insecure_port(self._target) if credentials is None else server.add_secure_port(self._target, credentials)
            )
        except RuntimeError as error:
            self._server = None
            text = f"Listening for gRPC on '{self._target}' failed: stop what holds it, or choose another port (LINKSPAN_GRPC)."
            raise SetupError(text) from error
        await server.start()

    async def drain(self, timeout: float) -> None:
        """Stop accepting, let calls in flight finish for `timeout` seconds, then cut what is left (UNAVAILABLE). Idempotent."""
        server, self._server = self._server, None
        if server is None:
            return
        stopped = asyncio.ensure_future(server.stop(timeout + _CUT_SECONDS))
        await asyncio.wait([stopped], timeout=timeout)
        self._answers.stopping = True
        for task in list(self._calls.tasks):
            task.cancel()
        await stopped

    def _options(self) -> list[tuple[str, Any]]:
        return [
            ("grpc.so_reuseport", 0),  # else a second process listens on the same port, and both take half of the calls
            ("grpc.max_receive_message_length", self._max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", _METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # clients behind proxies that forget may ask whether we live
        ]


class _Calls(grpc.GenericRpcHandler):
    """Finds the endpoint of a call by its path and runs it."""

    def __init__(self, endpoints: Iterable[Endpoint | StreamEndpoint], answers: Answers) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self._answers = answers
        self._handlers: Mapping[str, MethodHandler] = {each.operation.path: self._handler(each) for each in endpoints}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MethodHandler:
        """Return what answers the call; an unknown operation is refused in our own words."""
        return self._handlers.get(handler_call_details.method) or _unknown(handler_call_details.method)

    def _handler(self, endpoint: Endpoint | StreamEndpoint) -> MethodHandler:
        if isinstance(endpoint, StreamEndpoint):
            # On the wire all kinds are alike: any number of requests, then any number of responses.
            return grpc.stream_stream_rpc_method_handler(partial(self._run, endpoint, partial(self._stream, endpoint)))
        return grpc.unary_unary_rpc_method_handler(partial(self._run, endpoint, partial(self._answer, endpoint)))

    async def _run(self, endpoint: Endpoint | StreamEndpoint, answer: _Answer, requests: Any, context: ServicerContext) -> bytes | None:
        """Answer a call; whatever goes wrong ends it with a code."""
        path = endpoint.operation.path
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - grpcio runs each call in a task of its own
        self.tasks.add(task)
        try:
            return await answer(requests, context)
        except Error as error:
            refused = error
        except asyncio.CancelledError:
            if not self._answers.stopping:
                raise
            refused = Error(Code.UNAVAILABLE, STOPPING)
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - what a decoder in Rust may raise, too
            refused = self._answers.bug(path, error)
        finally:
            self.tasks.discard(task)
        try:
            refusal = status_of(refused)
        except Exception as bug:  # noqa: BLE001 - a detail with wrong values: the handler's fault, like what else it may raise
            refusal = status_of(self._answers.bug(path, bug))
        return await context.abort(*refusal)

    async def _answer(self, endpoint: Endpoint, body: bytes, context: ServicerContext) -> bytes:
        request = PROTO.read(body, endpoint.operation.request, Code.INVALID_ARGUMENT)
        return self._written(await self._answers.answer(endpoint, request, _inbound(context)))

    async def _stream(self, endpoint: StreamEndpoint, bodies: AsyncIterator[bytes], context: ServicerContext) -> None:
        requests = _requests(endpoint.operation, bodies, context)
        async with aclosing(self._answers.stream(endpoint, requests, _inbound(context))) as responses:
            async for response in responses:
                await context.write(self._written(response))

    def _written(self, response: Any) -> bytes:
        try:
            return PROTO.write(response)
        except UNWRITABLE as error:
            raise self._answers.unwritable(response, error) from None


async def _requests(operation: Operation[Any, Any], bodies: AsyncIterator[bytes], context: ServicerContext) -> AsyncGenerator[Any, None]:
    """Yield the requests of a stream.

    grpcio ends the requests of a caller that cancelled, or died, like those of one that had no more. A handler must not commit
    half a stream for that: the news of the cancellation are behind the end in grpcio's queue, and have passed it when one more
    read has come back. Then the handler's task needs some turns of the loop to be cancelled.
    """
    async for body in bodies:
        yield PROTO.read(body, operation.request, Code.INVALID_ARGUMENT)
    await context.read()
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def _inbound(context: ServicerContext) -> Inbound:
    left: Any = context.time_remaining()  # None without a deadline, whatever the stub says
    certificate = certificate_of(context.auth_context())
    origin = OUTSIDE if certificate is None else Origin(certificate)
    return Inbound(headers_of(context.invocation_metadata()), left, _peer(context.peer()), origin)


def _peer(text: str) -> str:
    """Return host and port of grpcio's `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`."""
    return unquote(text.partition(":")[2])


def _unknown(path: str) -> MethodHandler:
    text = f"Calling '{path}' failed: this server has no such operation, check service and method name."

    async def refuse(_requests: Any, context: ServicerContext) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)

    answer: Callable[..., Awaitable[Any]] = refuse
    return grpc.stream_stream_rpc_method_handler(answer)
