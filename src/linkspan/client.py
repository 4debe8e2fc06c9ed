"""The calling side: turning requests into calls on the direct path, and events and commands into messages.

`Caller` (and `sender.Sender`) are what a service's handlers use through their context; `Client` gives the same verbs to
programs that are no service.
"""

from __future__ import annotations

import math
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, overload

from linkspan.claimcheck import ClaimCheck
from linkspan.context import Context, Oversized
from linkspan.errors import Code, Error, SetupError
from linkspan.handler import check_streams, compose
from linkspan.middleware import Deadline, Tracing
from linkspan.outgoing.sender import Origin, Sender
from linkspan.owner import owned
from linkspan.path import Side
from linkspan.ports import Outgoing, Unit
from linkspan.runtime import system
from linkspan.streaming import driven, lone, only
from linkspan.trace import trace_of
from linkspan.when import when_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from types import TracebackType

    from linkspan.claimcheck import Blobs
    from linkspan.context import Home
    from linkspan.envelope import Reference
    from linkspan.handler import Handler, Middleware
    from linkspan.message import Event
    from linkspan.operation import BidiStream, ClientStream, Command, EventType, Operation, Query, ServerStream
    from linkspan.owner import Owns
    from linkspan.ports import BlobPlace, Broker, Runtime, Store
    from linkspan.streaming import Emit
    from linkspan.transport.connect import ConnectChannel
    from linkspan.transport.grpc_channel import GrpcChannel
    from linkspan.transport.rest_channel import RestChannel
    from linkspan.transport.tls import Tls
    from linkspan.when import Until, Wait, When

__all__ = ["Caller", "Client", "check_addresses"]

Req = TypeVar("Req")
Res = TypeVar("Res")
R = TypeVar("R")

DEFAULT_TIMEOUT = 5.0
"""Seconds for a call that names no timeout and has no deadline to inherit."""


def check_addresses(addresses: Mapping[str, str]) -> None:
    """Refuse what can never be connected to. Raises `SetupError`."""
    if addresses:
        from linkspan.transport.grpc_address import GRPC, grpc_target  # noqa: PLC0415 - as below
        from linkspan.transport.http import parse_address  # noqa: PLC0415 - imports HTTP only where calls are made
        from linkspan.transport.rest_channel import SCHEME, split_address  # noqa: PLC0415 - the same

        for address in addresses.values():
            if address.startswith(GRPC):
                grpc_target(address)
            else:
                (split_address if address.startswith(SCHEME) else parse_address)(address)


class Caller:
    """Calls operations over the direct path at static addresses.

    `addresses` maps a service contract (`shop.orders.v1.Orders`), a package or `*` to `http://host:port`, or to `grpc://host:port` where
    the peer speaks gRPC, or to `rest+http://host:port` for a REST service that is called by the routes of the contract.
    """

    def __init__(self, runtime: Runtime, addresses: Mapping[str, str], middleware: Sequence[Middleware], tls: Tls | None = None) -> None:
        self._runtime = runtime
        self.addresses = dict(addresses)
        self._middleware = middleware
        self._tls = tls
        self._secure: ssl.SSLContext | None = None
        self._chains: dict[str, Handler] = {}
        self._channels: dict[str, ConnectChannel | GrpcChannel | RestChannel] = {}

    async def call(
        self, home: Home, parent: Context | None, operation: Operation[Any, Any], request: Any, timeout: float | None, key: str | None
    ) -> Any:
        """Call and return the answer. Raises `Error`."""
        if type(request) is not operation.request or operation.client_streaming:
            _check_request(operation, request)
        ctx = self._context(home, parent, operation, timeout, key)
        chain = self._chains.get(operation.path)
        if chain is None:
            chain = self._chains[operation.path] = self._chain(operation)
        return await chain(ctx, request)

    def stream(
        self, home: Home, parent: Context | None, operation: Operation[Any, Any], request: Any, timeout: float | None, key: str | None
    ) -> AsyncGenerator[Any, None]:
        """Call and return the answers, yet to come. Raises `Error` where one is awaited."""
        if not operation.server_streaming:
            raise Error(Code.INVALID_ARGUMENT, f"'{operation.full_name}' has one answer: use call instead of stream.")
        _check_request(operation, request)
        ctx = self._context(home, parent, operation, timeout, key)

        async def run(emit: Emit) -> None:
            ctx.emit = emit
            chain = self._chains.get(operation.path)
            if chain is None:
                chain = self._chains[operation.path] = self._chain(operation)
            await chain(ctx, request)

        late = f"'{operation.full_name}' did not end before its deadline: give it more time."
        return driven(run, deadline=ctx.deadline, clock=self._runtime.clock, late=late)

    def move(self, addresses: Mapping[str, str]) -> None:
        """Make the next calls to other addresses; calls under way stay where they are."""
        self.addresses.update(addresses)
        self._chains.clear()

    async def aclose(self) -> None:
        """Close the connections."""
        channels, self._channels = self._channels, {}
        self._chains.clear()
        for channel in channels.values():
            await channel.aclose()

    def _context(
        self, home: Home, parent: Context | None, operation: Operation[Any, Any], timeout: float | None, key: str | None
    ) -> Context:
        if key is None:
            key = home.runtime.ids.new() if parent is None else parent.new_id()
        ctx = Context(home, operation.full_name, key, key, key, side=Side.CLIENT)
        limit = timeout
        if limit is None:
            streams = operation.client_streaming or operation.server_streaming
            limit = getattr(operation, "budget", None) or (math.inf if streams else DEFAULT_TIMEOUT)
        ctx.deadline = self._runtime.clock.monotonic() + limit
        if parent is not None:
            ctx.parent, ctx.correlation = parent.trace, parent.correlation
            ctx.deadline = min(ctx.deadline, parent.deadline)
        return ctx

    def _chain(self, operation: Operation[Any, Any]) -> Handler:
        channel = self._channel(operation)

        async def wire(ctx: Context, request: Any) -> Any:
            return await channel.unary(operation, request, headers=_headers(ctx), timeout=ctx.time_left)

        if operation.client_streaming or operation.server_streaming:
            check_streams(self._middleware, operation)
            if not hasattr(channel, "stream"):
                raise Error(Code.UNIMPLEMENTED, f"Streaming '{operation.full_name}' over gRPC or REST failed: give its http:// address.")
            return compose(self._middleware, _streaming_wire(cast("ConnectChannel", channel), operation))
        return compose(self._middleware, wire)

    def _channel(self, operation: Operation[Any, Any]) -> ConnectChannel | GrpcChannel | RestChannel:
        address = self._resolve(operation)
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._open(address)
        return channel

    def _open(self, address: str) -> ConnectChannel | GrpcChannel | RestChannel:
        from linkspan.transport.grpc_address import GRPC  # noqa: PLC0415 - as below

        if address.startswith(GRPC):
            from linkspan.transport.grpc_channel import GrpcChannel  # noqa: PLC0415 - loads grpcio, an extra

            return GrpcChannel(address, runtime=self._runtime, tls=self._tls)
        from linkspan.transport.connect import ConnectChannel  # noqa: PLC0415 - imports HTTP only where calls are made
        from linkspan.transport.rest_channel import SCHEME, RestChannel  # noqa: PLC0415 - the same

        tls = self._context_for(address.removeprefix("rest+"))
        if address.startswith(SCHEME):
            return RestChannel(address, runtime=self._runtime, tls=tls)
        return ConnectChannel(address, runtime=self._runtime, tls=tls)

    def _context_for(self, address: str) -> ssl.SSLContext | None:
        """Return the one context of all https:// addresses."""
        if self._secure is None and address.startswith("https://"):
            from linkspan.transport.tls import Tls, client_context  # noqa: PLC0415 - as above

            self._secure = client_context(self._tls or Tls())
        return self._secure

    def _resolve(self, operation: Operation[Any, Any]) -> str:
        name = operation.service_name
        for candidate in (name, operation.package, "*"):
            if candidate in self.addresses:
                return self.addresses[candidate]
        raise Error(Code.UNAVAILABLE, f"No address for '{name}': add it to addresses or LINKSPAN_ADDRESSES.")


def _headers(ctx: Context) -> dict[str, str]:
    headers = {"traceparent": ctx.trace, "idempotency-key": ctx.key, "linkspan-caller": ctx.service}
    if ctx.correlation != ctx.key:
        headers["linkspan-correlation"] = ctx.correlation
    return headers | ctx.headers


def _streaming_wire(channel: ConnectChannel | GrpcChannel, operation: Operation[Any, Any]) -> Handler:
    """Return the end of a stream's chain: responses leave by `ctx.emit`, or one is returned."""

    async def wire(ctx: Context, request: Any) -> Any:
        if ctx.emit is None and operation.server_streaming:
            raise Error(Code.INVALID_ARGUMENT, f"'{operation.full_name}' answers with a stream: use stream instead of call.")
        requests = aiter(request) if operation.client_streaming else lone(request)
        responses = channel.stream(operation, requests, headers=_headers(ctx), timeout=ctx.time_left)
        async with aclosing(responses):
            if ctx.emit is None:
                text = f"'{operation.full_name}' was not answered by one message: look at its service."
                return await only(responses, text, Code.INTERNAL)
            async for response in responses:
                await ctx.emit(response)
        return None

    return wire


def _check_request(operation: Operation[Any, Any], request: Any) -> None:
    """Refuse what is no request of the operation. Raises `Error`."""
    if operation.client_streaming:
        if not hasattr(request, "__aiter__"):
            text = f"'{operation.full_name}' was given a {type(request).__name__}: give an async iterable of its requests."
            raise Error(Code.INVALID_ARGUMENT, text)
    elif type(request) is not operation.request:
        text = f"'{operation.full_name}' was given a {type(request).__name__}: call it with its own request."
        raise Error(Code.INVALID_ARGUMENT, text)


class Client:
    """The verbs for programs that are no service: `async with Client(broker="nats://…", addresses={...}) as client`.

    Without a store, `publish` and `send` return once the broker has stored the message. `name` is what services see as caller.
    It may publish the events of the contracts (or packages, or event classes) in `owns`: for a program that is the owner, such as an
    importer. Tests and migrations, which stand in for others, write `owns="*"`. `tls` has the CA of https:// addresses, and the
    client's own certificate. `blobs` is as in `App`.
    """

    store: Store | None = None

    def __init__(  # noqa: PLR0913 - settings, all with defaults
        self,
        broker: str | Broker | None = None,
        *,
        addresses: Mapping[str, str] | str | None = None,
        name: str = "client",
        middleware: Sequence[Middleware] | None = None,
        runtime: Runtime | None = None,
        tls: Tls | None = None,
        owns: Owns = (),
        blobs: str | Blobs | BlobPlace | ClaimCheck | None = None,
    ) -> None:
        self.name = name
        self.runtime = runtime or system()
        layers = (Tracing(), Deadline()) if middleware is None else tuple(middleware)
        known = {"*": addresses} if isinstance(addresses, str) else (addresses or {})
        check_addresses(known)
        self._given = broker
        self._broker: Broker | None = None
        self._claims = blobs if isinstance(blobs, ClaimCheck) else ClaimCheck(blobs, self.runtime)
        self._lent = blobs is self._claims
        self._sender = Sender(name, self.runtime, owned(f"Client '{name}'", owns), self._claims.above)
        self._topics: set[str] = set()
        self.caller = Caller(self.runtime, known, layers, tls)

    async def __aenter__(self) -> Self:
        if isinstance(self._given, str):
            from linkspan.brokers import broker_for  # noqa: PLC0415 - adapters load where they are used

            self._broker = broker_for(self._given, self.runtime)
            await self._broker.open()
        else:
            self._broker = self._given
        if not self._lent:
            await self._claims.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        await self.caller.aclose()
        if not self._lent:
            await self._claims.aclose()
        if self._broker is not None and isinstance(self._given, str):
            await self._broker.aclose()
        self._broker = None

    @overload
    async def call(
        self, operation: Query[Req, Res] | Command[Req, Res], request: Req, /, *, timeout: float | None = None, key: str | None = None
    ) -> Res: ...
    @overload
    async def call(
        self,
        operation: ClientStream[Req, Res],
        requests: AsyncIterable[Req],
        /,
        *,
        timeout: float | None = None,
        key: str | None = None,
    ) -> Res: ...
    async def call(self, operation: Operation[Any, Any], request: Any, /, *, timeout: float | None = None, key: str | None = None) -> Any:
        """Call now and wait for the answer, at most `timeout` seconds (default 5; none where requests are streamed). Raises `Error`."""
        return await self.caller.call(self, None, operation, request, timeout, key)

    @overload
    def stream(
        self, operation: ServerStream[Req, Res], request: Req, /, *, timeout: float | None = None, key: str | None = None
    ) -> AsyncGenerator[Res, None]: ...
    @overload
    def stream(
        self,
        operation: BidiStream[Req, Res],
        requests: AsyncIterable[Req],
        /,
        *,
        timeout: float | None = None,
        key: str | None = None,
    ) -> AsyncGenerator[Res, None]: ...
    def stream(
        self, operation: Operation[Any, Any], request: Any, /, *, timeout: float | None = None, key: str | None = None
    ) -> AsyncGenerator[Any, None]:
        """Call now and iterate over the answers, as `Context.stream` does. Raises `Error` where an answer is awaited."""
        return self.caller.stream(self, None, operation, request, timeout, key)

    async def send(
        self,
        operation: Command[Req, Any],
        request: Req,
        /,
        *,
        key: str | None = None,
        after: Wait | None = None,
        at: datetime | None = None,
        expires: Until | None = None,
    ) -> str:
        """Send a durable command and return its id; returns once the broker has stored it.

        `expires` is as in `Context.send`. `after` and `at` are refused: a client has no store to keep a message in.
        """
        when = self._when(after, at, expires)
        try:
            message = self._sender.command(self._origin(), operation, request, key, when)
        except Oversized as large:
            message = await self.stow(large.message)
        await self._deliver(message)
        return message.id

    @overload
    async def publish(
        self, event: Event, /, *, after: Wait | None = None, at: datetime | None = None, expires: Until | None = None
    ) -> str: ...
    @overload
    async def publish(
        self,
        event: EventType[Req],
        message: Req,
        /,
        *,
        after: Wait | None = None,
        at: datetime | None = None,
        expires: Until | None = None,
    ) -> str: ...
    async def publish(
        self,
        event: Any,
        message: Any = None,
        /,
        *,
        after: Wait | None = None,
        at: datetime | None = None,
        expires: Until | None = None,
    ) -> str:
        """Publish an event and return its id; returns once the broker has stored it. The options are those of `send`."""
        when = self._when(after, at, expires)
        try:
            outgoing = self._sender.event(self._origin(), event, message, when)
        except Oversized as large:
            outgoing = await self.stow(large.message)
        await self._deliver(outgoing)
        return outgoing.id

    def _when(self, after: Wait | None, at: datetime | None, expires: Until | None) -> When:
        if after is not None or at is not None:
            text = "A client has no store to keep a message in until it is due: send it with 'after' or 'at' from a Service."
            raise Error(Code.FAILED_PRECONDITION, text)
        return when_of(self.runtime.clock.now(), None, None, expires)

    def _origin(self) -> Origin:
        id_ = self.runtime.ids.new()
        return Origin(id_, trace_of(id_))

    async def _deliver(self, message: Outgoing) -> None:
        broker = self._broker
        if broker is None:
            raise Error(Code.FAILED_PRECONDITION, "The client has no broker: write Client(broker='nats://…') and enter it.")
        if message.topic not in self._topics:
            await broker.declare([message.topic], [])
            self._topics.add(message.topic)
        self.runtime.reached("client.publish.before")
        await broker.publish(message)
        self.runtime.reached("client.publish.after")

    # --- what a context asks of its home ---

    async def call_from(self, ctx: Context, operation: Operation[Any, Any], request: Any, timeout: float | None, key: str | None) -> Any:
        """Carry a call on behalf of a context."""
        return await self.caller.call(self, ctx, operation, request, timeout, key)

    def stream_from(
        self, ctx: Context, operation: Operation[Any, Any], request: Any, timeout: float | None, key: str | None
    ) -> AsyncGenerator[Any, None]:
        """Carry a stream on behalf of a context."""
        return self.caller.stream(self, ctx, operation, request, timeout, key)

    def outgoing_event(self, ctx: Context, kind: Any, message: Any, when: When) -> Outgoing:
        """Make an event's message."""
        return self._sender.event(ctx, kind, message, when)

    def outgoing_command(self, ctx: Context, operation: Operation[Any, Any], request: Any, key: str | None, when: When) -> Outgoing:
        """Make a command's message."""
        return self._sender.command(ctx, operation, request, key, when)

    async def stow(self, message: Outgoing) -> Outgoing:
        """Put a large content into the blob place."""
        return await self._claims.stow(self.name, message)

    def fetched(self, reference: Reference) -> AbstractAsyncContextManager[bytes]:
        """Fetch a large content from the blob place."""
        return self._claims.fetched(reference)

    def resource(self, kind: type[R]) -> R:
        """Refuse: a client has no resources."""
        raise SetupError(f"A client has no resource '{kind.__name__}': resources belong to a Service's lifespan.")

    def unit(self, inbox: tuple[str, str] | None = None) -> Unit:
        """Return an empty unit."""
        return Unit(_ignore, inbox)


def _ignore(_unit: Unit) -> None:
    pass
