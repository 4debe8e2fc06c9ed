"""A service at work: its store, relay, consumers and endpoints, and the home of its handlers' contexts."""

from __future__ import annotations

import asyncio
import logging
import math
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from linkspan.content import decode_content
from linkspan.context import Context, Transaction
from linkspan.errors import Code, Error, SetupError
from linkspan.handler import compose
from linkspan.incoming.breaker import waiting
from linkspan.incoming.consumer import Consumer
from linkspan.incoming.foreign import ForeignReader
from linkspan.incoming.inbox import forget_old
from linkspan.incoming.work import Binding, frames
from linkspan.lanes import Lanes
from linkspan.letters.deadletter import LETTER_EVENTS, Holding
from linkspan.message import type_name
from linkspan.operation import Command
from linkspan.outgoing.handover import Mover
from linkspan.outgoing.sender import Sender, command_topic, event_topic
from linkspan.ports import Outcome, Unit
from linkspan.streaming import driven, emitting, only, received
from linkspan.trace import trace_of
from linkspan.transport.endpoint import LATE, Endpoint, StreamEndpoint
from linkspan.validation import check_of, checked

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from linkspan.claimcheck import ClaimCheck
    from linkspan.client import Caller
    from linkspan.envelope import Reference
    from linkspan.handler import Handler, Middleware
    from linkspan.lanes import Fence
    from linkspan.letters.announcing import Announcer
    from linkspan.letters.turns import Turns
    from linkspan.operation import Operation
    from linkspan.outgoing.outbox import Relay
    from linkspan.ports import Broker, Outgoing, Runtime, Store
    from linkspan.service import Handled, Service
    from linkspan.streaming import Emit
    from linkspan.transport.endpoint import Inbound
    from linkspan.when import When

__all__ = ["RunningService", "ServiceTransaction"]

R = TypeVar("R")

_log = logging.getLogger("linkspan.service")

CALL_TIMEOUT = 30.0
"""Seconds that a call may take whose caller set no timeout."""


class RunningService:
    """One service of a started App."""

    def __init__(  # noqa: PLR0913 - the parts it joins, named at its one call
        self,
        service: Service,
        *,
        runtime: Runtime,
        store: Store,
        relay: Relay,
        broker: Broker,
        caller: Caller,
        middleware: Sequence[Middleware],
        retention: float,
        turns: Turns,
        claims: ClaimCheck,
        instance: str = "",
    ) -> None:
        self.declared = service
        self.name = service.name
        self.runtime = runtime
        self.store: Store | None = store
        self.relay = relay
        self._store = store
        self._broker = broker
        self._caller = caller
        self._claims = claims
        self._sender = Sender(service.name, runtime, service.owned, claims.above)
        self._resources: dict[type[Any], object] = {}
        self._middleware = (*middleware, *service.middleware)
        self._handlers: dict[str, Handler] = {}
        self._retention = retention
        self._cleaning: asyncio.Task[None] | None = None
        self.holding = Holding(self, store, service.limits, turns, self._announcer() if service.letter_events else None)
        self.mover = Mover(service.outbox, self.name, relay, runtime, self._submit) if service.outbox is not None else None
        self.consumers = [self._consumer(topic, bindings) for topic, bindings in self._topics().items()]
        self.groups = [(consumer.topic, self.name) for consumer in self.consumers]
        self.foreign = [ForeignReader(source, broker, service.name) for source in service.sources]
        self.consumers += [self._foreign_consumer(reader) for reader in self.foreign]
        self.lanes = Lanes(store, self.name, instance, runtime, self) if store.shared and self.consumers else None
        for consumer in self.consumers:
            if consumer.lanes is not None and self.lanes is not None:
                consumer.lanes.moved = self.lanes.moved

    # --- life ---

    @property
    def topics(self) -> set[str]:
        """Return the topics that this service's own contracts publish to or take commands from."""
        packages = {contract.contract.package for contract in self.declared.contracts} | self.declared.owned.places
        packages |= {LETTER_EVENTS} if self.declared.letter_events else set()
        return {topic for topic, _ in self.groups} | {event_topic(package) for package in packages}

    def _announcer(self) -> Announcer:
        from linkspan.letters.announcing import Announcer  # noqa: PLC0415 - only where it is used

        return Announcer(self.name, self.runtime, self.relay)

    def provide(self, given: object) -> None:
        """Take what the lifespan yielded."""
        several: tuple[object, ...] = cast("tuple[object, ...]", given) if isinstance(given, tuple) else (given,)
        for resource in several:
            if type(resource) in self._resources:
                text = f"The lifespan of service '{self.name}' yields two of type '{type(resource).__name__}': give each a type of its own."
                raise SetupError(text)
            if resource is not None:
                self._resources[type(resource)] = resource

    def override(self, resources: Mapping[type[Any], object]) -> None:
        """Put other resources in the place of the lifespan's (tests)."""
        self._resources.update(resources)

    async def start(self) -> None:
        """Begin to consume."""
        await self.holding.start()
        self._cleaning = asyncio.get_running_loop().create_task(forget_old(self._store, self.runtime, self._retention))
        for consumer in self.consumers:
            await consumer.start()
        if self.lanes is not None:
            await self.lanes.start()
        if self.mover is not None:
            await self.mover.start()

    async def drain(self) -> None:
        """Take no more messages, finish those that were started, and leave the rest to other instances at once."""
        moving = [] if self.mover is None else [self.mover.drain()]
        await asyncio.gather(*moving, *(consumer.drain() for consumer in self.consumers))
        if self.lanes is not None:
            await self.lanes.aclose()

    async def aclose(self) -> None:
        """Stop everything of this service but its store and relay, which others may share."""
        if self.mover is not None:
            await self.mover.aclose()
        if self.lanes is not None:
            await self.lanes.aclose()
        for consumer in self.consumers:
            await consumer.aclose()
        await self.holding.aclose()
        if self._cleaning is not None:
            self._cleaning.cancel()
            await asyncio.gather(self._cleaning, return_exceptions=True)

    # --- lanes ---

    async def gain(self, fences: Mapping[int, Fence]) -> None:
        """Begin with lanes: what is held of them first, then what comes."""
        await self.holding.gain(fences)
        reading = [consumer.lanes for consumer in self.consumers if consumer.lanes is not None and not consumer.stopping]
        await asyncio.gather(*(each.gain(fences) for each in reading))

    def beware(self) -> None:
        """Handle alone what may have ended the instance that had it before."""
        for consumer in self.consumers:
            consumer.beware()
        self.holding.beware()

    def lose(self, lanes: Collection[int]) -> None:
        """Drop lanes."""
        for consumer in self.consumers:
            if consumer.lanes is not None:
                consumer.lanes.lose(lanes)
        self.holding.lose(lanes)

    async def give_up(self, lanes: Collection[int]) -> None:
        """Finish with lanes."""
        await asyncio.gather(*(consumer.lanes.give_up(lanes) for consumer in self.consumers if consumer.lanes is not None))

    def waiting(self) -> dict[str, str]:
        """Return which consumers wait for what their handlers depend on, and since when."""
        return waiting(self.consumers)

    # --- handlers ---

    def _topics(self) -> dict[str, dict[str, Binding]]:
        found: dict[str, dict[str, Binding]] = {}
        for name, handled in self.declared.events.items():
            found.setdefault(event_topic(handled.package), {})[name] = self._binding(handled)
        for handled in self.declared.operations.values():
            if isinstance(handled.operation, Command):
                found.setdefault(command_topic(handled.package), {})[handled.name] = self._binding(handled)
        return found

    def _foreign_consumer(self, reader: ForeignReader) -> Consumer:
        handled = self.declared.events[type_name(reader.source.event)]
        return self._consumer(reader.source.subject, {handled.name: self._binding(handled)}, reader)

    def _consumer(self, topic: str, bindings: dict[str, Binding], reader: ForeignReader | None = None) -> Consumer:
        own = tuple(f"{contract.full_name}." for contract in self.declared.contracts)
        strict = own if topic.endswith(".commands") else ()
        consumer = Consumer(
            self,
            topic,
            bindings,
            broker=reader or self._broker,
            relay=self.relay,
            holding=self.holding,
            limits=self.declared.limits,
            strict=strict,
            breaker=self.declared.breaker,
            prefetch=self.declared.prefetch,
        )
        self.holding.add(consumer)
        return consumer

    def _binding(self, handled: Handled) -> Binding:
        limits = handled.limits or self.declared.limits
        return Binding(handled.name, partial(decode_content, handled.request), self._handler(handled), handled.once, limits)

    def _handler(self, handled: Handled) -> Handler:
        if handled.name not in self._handlers:
            function, operation = handled.function, handled.operation
            if operation is not None and operation.server_streaming:
                function = emitting(function, handled.name, operation.response)
            check = check_of(handled.request)
            if check is not None:
                function = checked(check, function, each=operation is not None and operation.client_streaming)
            self._handlers[handled.name] = compose(self._middleware, function)
        return self._handlers[handled.name]

    def endpoints(self) -> list[Endpoint | StreamEndpoint]:
        """Return what this service answers on the direct path."""
        found: list[Endpoint | StreamEndpoint] = []
        for handled in self.declared.operations.values():
            operation = handled.operation
            if operation is None:
                continue
            if operation.client_streaming or operation.server_streaming:
                found.append(StreamEndpoint(operation, partial(self.serve_stream, handled)))
            else:
                found.append(Endpoint(operation, partial(self.serve, handled)))
        return found

    async def serve(self, handled: Handled, request: Any, inbound: Inbound) -> Any:
        """Answer a direct call: run the handler, commit what it recorded, then answer."""
        ctx = self._called(handled, inbound)
        if not ctx.read_only:
            await self.room(ctx)
        try:
            response = await self._handler(handled)(ctx, request)
            _check_response(handled, response)
            if ctx.used_tx is not None:
                await self.commit(ctx.used_tx)
        except BaseException as error:
            await self._undo(ctx)
            if isinstance(error, Error) or not isinstance(error, Exception):
                raise
            raise self._failure(handled, error) from error
        return response

    def serve_stream(self, handled: Handled, requests: AsyncIterator[Any], inbound: Inbound) -> AsyncGenerator[Any, None]:
        """Answer a direct call with a stream; what the handler recorded commits when it ended well, before the reader is told."""
        ctx = self._called(handled, inbound, math.inf)
        return driven(partial(self._streamed, handled, ctx, requests), deadline=ctx.deadline, clock=self.runtime.clock, late=LATE)

    async def _streamed(self, handled: Handled, ctx: Context, requests: AsyncIterator[Any], emit: Emit) -> None:
        operation = handled.operation
        assert operation is not None  # noqa: S101 - only operations stream
        try:
            if not ctx.read_only:
                await self.room(ctx)
            request = received(ctx, requests) if operation.client_streaming else await self._only(handled, requests)
            if operation.server_streaming:
                ctx.emit = emit
            response = await self._handler(handled)(ctx, request)
            if not operation.server_streaming:
                _check_response(handled, response)
            if ctx.used_tx is not None:
                await self.commit(ctx.used_tx)
        except BaseException as error:
            await self._undo(ctx)
            if isinstance(error, Error) or not isinstance(error, Exception):
                raise
            raise self._failure(handled, error) from error
        if not operation.server_streaming:
            await emit(response)

    async def _only(self, handled: Handled, requests: AsyncIterator[Any]) -> Any:
        return await only(requests, f"'{handled.name}' takes one request: send one.", Code.UNIMPLEMENTED)

    def _failure(self, handled: Handled, error: Exception) -> Error:
        """Log what a handler raised; the caller gets the id of the entry."""
        id_ = self.runtime.ids.new()
        fields = {
            "service": self.name,
            "operation": handled.name,
            "error": type(error).__name__,
            "error_id": id_,
            "stack": frames(error),
        }
        _log.error("A handler raised.", extra=fields)
        return Error(Code.INTERNAL, f"'{handled.name}' failed; its service has logged it as {id_}.")

    def _called(self, handled: Handled, inbound: Inbound, most: float = CALL_TIMEOUT) -> Context:
        headers = inbound.headers
        key = headers.get("idempotency-key", "").strip('"')[:512] or self.runtime.ids.new()
        return Context(
            self,
            handled.name,
            key,
            key,
            headers.get("linkspan-correlation", "")[:128] or key,
            headers.get("traceparent", ""),
            headers.get("linkspan-caller", "")[:128],
            self.runtime.clock.monotonic() + (most if inbound.timeout is None else inbound.timeout),
            read_only=handled.operation is None or handled.operation.kind == "query",
            certificate=inbound.origin.certificate,
            same_process=inbound.origin.same_process,
            _headers=cast("dict[str, str]", headers),
        )

    def transaction(self) -> ServiceTransaction:
        """Return a transaction outside of any handler: `async with ... as ctx`."""
        return ServiceTransaction(self)

    async def commit(self, tx: Transaction) -> None:
        """Commit a handler's transaction and hand its messages to the relay. Raises `Error`."""
        if not tx.wrote:
            return
        done = self._awaited(tx.unit)
        if tx.session is not None:
            await tx.session.commit()
        else:
            self._store.submit(tx.unit)
        await done

    async def _submit(self, unit: Unit) -> None:
        """Commit a unit of its own, and hand its messages to the relay. Raises `Error`."""
        done = self._awaited(unit)
        self._store.submit(unit)
        await done

    def _awaited(self, unit: Unit) -> asyncio.Future[None]:
        """Return a future that ends when the unit is settled."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        unit.settled, unit.tag = self._settled, done
        return done

    def _settled(self, unit: Unit) -> None:
        done: asyncio.Future[None] = unit.tag
        if unit.outcome is Outcome.COMMITTED and unit.messages:
            self.relay.take(unit.messages)
        if unit.due and unit.outcome is Outcome.COMMITTED:
            self.relay.planned(unit.due)
        if done.done():
            return
        if unit.outcome is Outcome.FAILED:
            done.set_exception(unit.error or Error(Code.UNKNOWN, "The commit failed."))
        else:
            done.set_result(None)

    async def room(self, ctx: Context) -> None:
        """Wait, before any statement, until the outbox has room. Raises `Error(RESOURCE_EXHAUSTED)` when there is none in time."""
        if not self.relay.full:
            return
        try:
            async with asyncio.timeout(min(ctx.time_left, CALL_TIMEOUT)):
                await self.relay.room()
        except TimeoutError:
            raise Error(Code.RESOURCE_EXHAUSTED, "The outbox is full: the broker stores less than is published. Try later.") from None

    async def _undo(self, ctx: Context) -> None:
        tx = ctx.used_tx
        if tx is not None and tx.session is not None:
            await asyncio.shield(tx.session.rollback())

    # --- what a context asks of its home ---

    async def call_from(self, ctx: Context, operation: Operation[Any, Any], request: Any, timeout: float | None, key: str | None) -> Any:
        """Carry a handler's call."""
        return await self._caller.call(self, ctx, operation, request, timeout, key)

    def stream_from(
        self, ctx: Context, operation: Operation[Any, Any], request: Any, timeout: float | None, key: str | None
    ) -> AsyncGenerator[Any, None]:
        """Carry a stream of a handler's."""
        return self._caller.stream(self, ctx, operation, request, timeout, key)

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
        """Return the resource of this type, or the one that is an instance of it."""
        found = self._resources.get(kind)
        if found is None:
            found = next((resource for resource in self._resources.values() if isinstance(resource, kind)), None)
            if found is None:
                raise SetupError(f"Service '{self.name}' has no resource '{kind.__name__}': yield one from its lifespan.")
            self._resources[kind] = found
        return found  # type: ignore[return-value]  # filed under its own type

    def unit(self, inbox: tuple[str, str] | None = None) -> Unit:
        """Return an empty unit; whoever submits it sets `settled`."""
        return Unit(_unsettled, inbox)


class ServiceTransaction:
    """A unit of work outside of any handler: commits at the end of the block, forgotten when the block raises."""

    __slots__ = ("_ctx", "_service")

    def __init__(self, service: RunningService) -> None:
        self._service = service
        self._ctx: Context | None = None

    async def __aenter__(self) -> Context:
        id_ = self._service.runtime.ids.new()
        ctx = self._ctx = Context(self._service, "transaction", id_, id_, id_, begins=True)
        ctx.trace = trace_of(id_)
        if self._service.relay.full:
            await self._service.room(ctx)
        return ctx

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ctx = self._ctx
        if ctx is None or ctx.used_tx is None:
            return
        tx = ctx.used_tx
        if error is None:
            await self._service.commit(tx)
        elif tx.session is not None:
            await asyncio.shield(tx.session.rollback())


def _check_response(handled: Handled, response: Any) -> None:
    if handled.operation is not None and type(response) is not handled.operation.response:
        text = f"The handler of '{handled.name}' returned a {type(response).__name__}: return its response type."
        raise Error(Code.INTERNAL, text)


def _unsettled(_unit: Unit) -> None:
    """Stand in until the unit is submitted."""
