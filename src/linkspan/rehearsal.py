"""A rehearsal: a service's real handler runs for a held message, its transaction is undone, nothing is published.

Its statements run, so that a broken constraint shows; they are written down and rolled back. Commands to other services are not
called, queries are. What a handler does by other means (mails, files, foreign APIs) it really does: `ctx.rehearsing` tells it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from linkspan import envelope as envelopes
from linkspan.brokers.memory import MemoryBroker
from linkspan.client import Caller
from linkspan.context import Context, Duplicate
from linkspan.envelope import claim
from linkspan.errors import Code, Error
from linkspan.incoming.work import handler_error
from linkspan.letters.desk import stack_of
from linkspan.letters.turns import Turns
from linkspan.outgoing.outbox import Relay
from linkspan.path import Path
from linkspan.running import RunningService

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from linkspan.app import App
    from linkspan.claimcheck import ClaimCheck
    from linkspan.handler import Middleware
    from linkspan.incoming.work import Binding
    from linkspan.operation import Operation
    from linkspan.ports import Letter, Outgoing, Runtime, Session, Store, Unit, Value
    from linkspan.service import Service

__all__ = ["Rehearsal", "Rehearsed", "rehearsal_of"]


CLAIM = "select 1 /* rehearsal */"


@dataclass(slots=True)
class Rehearsed:
    """What a handler did. `statements` are its SQL with their values, `called` the operations it called, `publishes` its messages.

    `error` is None where it would have its effect; `handled` says that it has had it before: a redrive would only remove the letter.
    """

    statements: list[tuple[str, Sequence[Value]]] = field(default_factory=list["tuple[str, Sequence[Value]]"])
    publishes: list[Outgoing] = field(default_factory=list["Outgoing"])
    called: list[str] = field(default_factory=list[str])
    error: Error | None = None
    stack: str = ""
    handled: bool = False


class _Undone:
    """A session that is written down and never committed."""

    def __init__(self, session: Session, seen: Rehearsed) -> None:
        self._session = session
        self._seen = seen

    async def execute(self, sql: str, args: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        self._seen.statements.append((sql, args))
        return await self._session.execute(sql, args)

    async def commit(self) -> None:
        raise Error(Code.FAILED_PRECONDITION, "A rehearsal commits nothing.")

    async def rollback(self) -> None:
        await self._session.rollback()


class _Watched:
    """A store whose transactions are watched and never committed. What a rehearsal does not need it does not have."""

    def __init__(self, store: Store, seen: Rehearsed) -> None:
        self._store = store
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def submit(self, _unit: Unit) -> None:
        raise Error(Code.FAILED_PRECONDITION, "A rehearsal commits nothing.")

    async def begin(self, unit: Unit, sql: str, args: Sequence[Value] = ()) -> tuple[Session, list[tuple[Any, ...]]] | None:
        recorded = list(unit.statements)
        opened = await self._store.begin(unit, sql, args)
        if opened is None:
            return None
        self._seen.statements += [*recorded, (sql, args)]
        return _Undone(opened[0], self._seen), opened[1]


class _Rehearsing(RunningService):
    """A service whose handlers call no commands."""

    rehearsing = True
    seen: Rehearsed

    def find(self, name: str) -> Binding | None:
        """Return the handler of a type."""
        return next((bindings[name] for bindings in self._topics().values() if name in bindings), None)

    async def call_from(self, ctx: Context, operation: Operation[Any, Any], request: Any, timeout: float | None, key: str | None) -> Any:
        self.seen.called.append(operation.full_name)
        if operation.kind != "query":
            text = f"A rehearsal calls no commands: here '{operation.full_name}' would be called, what follows is not known."
            raise Error(Code.FAILED_PRECONDITION, text)
        return await super().call_from(ctx, operation, request, timeout, key)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Tries one service's handlers on a store that nobody else needs, or whose transactions can be undone."""

    service: Service
    runtime: Runtime
    middleware: Sequence[Middleware]
    caller: Caller
    claims: ClaimCheck
    overrides: Mapping[type[Any], object]

    async def run(self, store: Store, letter: Letter) -> Rehearsed:
        """Run the handler of a letter's message, undo everything, and return what it did. Raises `Error` where there is no handler."""
        seen = Rehearsed()
        async with self._service(store, seen) as running:
            try:
                async with asyncio.timeout(self.service.limits.timeout):
                    await self._handle(running, letter, seen)
            except Duplicate:
                seen.handled = True
            except TimeoutError:
                limit = self.service.limits.timeout
                seen.error = Error(Code.DEADLINE_EXCEEDED, f"The handler took longer than {limit:g} s: give it more time.")
            except Exception as error:  # noqa: BLE001 - whatever a handler raises is what the rehearsal is about
                seen.error, seen.stack = handler_error(error, self.service.limits, {"service": self.service.name}), stack_of(error)
        return seen

    @asynccontextmanager
    async def _service(self, store: Store, seen: Rehearsed) -> AsyncGenerator[_Rehearsing]:
        watched: Any = _Watched(store, seen)
        broker = MemoryBroker(runtime=self.runtime)
        running = _Rehearsing(
            self.service,
            runtime=self.runtime,
            store=watched,
            relay=Relay(watched, broker, self.runtime),
            broker=broker,
            caller=self.caller,
            middleware=self.middleware,
            retention=0.0,
            turns=Turns(),
            claims=self.claims,
        )
        running.seen = seen
        running.override(self.overrides)
        if self.service.lifespan is None:
            yield running
            return
        async with self.service.lifespan() as given:
            running.provide(given)
            running.override(self.overrides)
            yield running

    async def _handle(self, running: _Rehearsing, letter: Letter, seen: Rehearsed) -> None:
        envelope = envelopes.read(letter.headers, letter.data)
        binding = running.find(envelope.type)
        if binding is None:
            raise Error(Code.UNIMPLEMENTED, f"There is no handler for '{envelope.type}' here: deploy it, then redrive.")
        request = binding.decode(letter.data, envelope.content_type)
        ctx = Context(
            running,
            binding.operation,
            envelope.id,
            envelope.id,
            envelope.correlation or envelope.id,
            envelope.trace,
            envelope.source,
            self.runtime.clock.monotonic() + self.service.limits.timeout,
            Path.DURABLE,
            attempt=letter.attempts + 1,
            claim=claim(self.service.name, envelope.source, envelope.id) if binding.once else None,
        )
        try:
            await binding.handler(ctx, request)
            await self._settle(ctx, seen)
        finally:
            tx = ctx.used_tx
            if tx is not None and tx.session is not None:
                await asyncio.shield(tx.session.rollback())

    async def _settle(self, ctx: Context, seen: Rehearsed) -> None:
        """Run what the handler recorded, as its commit would."""
        tx = ctx.tx
        seen.publishes = list(tx.unit.messages)
        recorded, tx.unit.statements = list(tx.unit.statements), []
        if tx.session is None:
            await tx.execute(CLAIM)  # the claim of the message's id is the first thing of every commit
        for sql, args in recorded:
            await tx.execute(sql, *args)
        seen.statements = [each for each in seen.statements if each[0] != CLAIM]


def rehearsal_of(app: App, service: Service) -> Rehearsal:
    """Return what tries the handlers of one of an app's services, which need not run."""
    caller = Caller(app.runtime, app.known_addresses(), app.middleware, app.tls)
    return Rehearsal(service, app.runtime, app.middleware, caller, app.claims, app.overrides)
