"""Run a whole app in a test, and wait until all that it set in motion is done."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args
from urllib.parse import quote

from linkspan.brokers import broker_for
from linkspan.errors import Code, Error, SetupError
from linkspan.message import package_of
from linkspan.operation import ServiceContract
from linkspan.path import Side
from linkspan.ports import LetterState
from linkspan.service import Service
from linkspan.testing.clock import FakeClock, fake_runtime
from linkspan.testing.sent import Sent, name_of
from linkspan.testing.watched import WatchedBroker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from linkspan.app import App
    from linkspan.client import Client
    from linkspan.context import Context
    from linkspan.handler import Handler
    from linkspan.message import Event
    from linkspan.operation import Command, Operation, Query
    from linkspan.ports import Broker, Letter, Runtime

__all__ = ["ENGINE", "Engine", "Run", "settled"]

Req = TypeVar("Req")
Res = TypeVar("Res")

Engine = Literal["memory", "nats"]

ENGINE = "LINKSPAN_TEST_BROKER"
"""The environment variable that chooses the broker of `settled`, which pytest's `--linkspan-broker` sets."""
PATIENCE = 20.0
"""Seconds that work which does not wait for the clock may take; long, since a slow machine is no failure."""
STILL = 0.05
"""Seconds without a change after which what is left is taken to wait for the clock."""
RETRIES = 10.0
"""Seconds that `settle` moves the clock in all for messages between two inline tries; parked ones wait for `advance`."""


class _Watching:
    """The innermost middleware of the app in a test: counts what was handled, and fails what is told to."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: dict[str, Error] = {}

    async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
        if ctx.side is not Side.SERVER:
            return await call_next(ctx, request)
        if ctx.operation in self.failures:
            raise self.failures[ctx.operation]
        answer = await call_next(ctx, request)
        self.counts[ctx.operation] += 1
        return answer


class Run:
    """A running app in a test's hands: its verbs, what it sent, and its time."""

    def __init__(self, app: App, client: Client, broker: WatchedBroker, clock: FakeClock | None, watching: _Watching) -> None:
        self.app = app
        self.client = client
        self._broker = broker
        self._clock = clock
        self._watching = watching
        self._seen_dead: set[tuple[str, int]] = set()

    # --- verbs ---

    async def call(self, operation: Query[Req, Res] | Command[Req, Res], request: Req, /, **options: Any) -> Res:
        """Call an operation, as any caller would."""
        return await self.client.call(operation, request, **options)

    async def send(self, operation: Command[Req, Any], request: Req, /, *, key: str | None = None) -> None:
        """Send a durable command."""
        await self.client.send(operation, request, key=key)

    async def publish(self, event: Event, /, *, by: Service | str | None = None) -> None:
        """Publish an event as the service of its package does, in a transaction of its own; `by` names another."""
        service = self._owner(event) if by is None else by if isinstance(by, Service) else self._named(by)
        if service is None:
            await self.client.publish(event)
            return
        async with self.app.transaction(service) as ctx:
            await ctx.publish(event)

    def _owner(self, event: Event) -> Service | None:
        package = package_of(type(event))
        owners = (s for s in self.app.services if any(contract.contract.package == package for contract in s.contracts))
        return next(owners, None)

    def _named(self, name: str) -> Service:
        for service in self.app.services:
            if service.name == name:
                return service
        raise SetupError(f"There is no service '{name}' in this app: name one of {', '.join(s.name for s in self.app.services)}.")

    # --- what happened ---

    @property
    def sent(self) -> Sent:
        """Return the events and durable commands that the broker has stored, in order."""
        return Sent(self._broker.stored)

    def handled(self, what: type[Any] | Operation[Any, Any]) -> int:
        """Count how often an operation or event was handled without an error."""
        return self._watching.counts[name_of(what)]

    async def dead(self) -> list[Letter]:
        """Return the messages that failed for good. A test that ends without having looked at one fails."""
        letters = await self._letters(LetterState.DEAD)
        self._seen_dead.update((service, letter.position) for service, letter in letters)
        return [letter for _, letter in letters]

    async def waiting(self) -> list[Letter]:
        """Return the messages that are parked, or wait behind one that is."""
        return [letter for _, letter in await self._letters(LetterState.PARKED, LetterState.WAITING)]

    async def _letters(self, *states: LetterState) -> list[tuple[str, Letter]]:
        return [(url, letter) for url, store in self.app.stores.items() for letter in await store.letters(states=states, limit=10_000)]

    # --- faults and time ---

    def fail(self, what: type[Any] | Operation[Any, Any], error: Error | None) -> None:
        """Let an operation or event handler fail from now on; None ends it."""
        if error is None:
            self._watching.failures.pop(name_of(what), None)
        else:
            self._watching.failures[name_of(what)] = error

    async def advance(self, seconds: float) -> None:
        """Move the clock, then settle: parked messages and delayed work come due."""
        if self._clock is None:
            raise SetupError("This run has the real clock: leave out `runtime`, so that the test owns the time.")
        step = max(1.0, seconds / 100)
        while seconds > 0:
            await self._clock.advance(min(step, seconds))
            seconds -= step
            for running in self.app.running.values():
                running.holding.look()
            await self.settle()

    async def settle(self) -> None:
        """Wait until nothing is left to do but what is parked or dead.

        Raises `AssertionError` naming what is left when that does not end.
        """
        spent, moved = 0.0, 0.0
        before, still = self._state(), 0.0
        while any(before):
            if spent > PATIENCE:
                raise AssertionError(f"The app did not settle: {self._left()}.")
            await asyncio.sleep(0.001)
            spent += 0.001
            now = self._state()
            still = still + 0.001 if now == before else 0.0
            before = now
            if still > STILL and self._clock is not None and moved < RETRIES:
                await self._clock.advance(0.1)
                moved, still = moved + 0.1, 0.0

    def _state(self) -> tuple[int, int, int, int, int]:
        """Return how much is in the outboxes, with the broker, in hand, and being taken from what is held or scheduled."""
        running = self.app.running.values()
        outbox = sum(relay.waiting for relay in {id(each.relay): each.relay for each in running}.values())
        in_hand = sum(len(consumer.in_hand) for each in running for consumer in each.consumers)
        moving = sum(timetable.busy for timetable in self.app.timetables)
        return outbox, len(self._broker.unsettled()), in_hand, sum(each.holding.busy for each in running), moving

    def _left(self) -> str:
        outbox, _, in_hand, *_ = self._state()
        groups = Counter(group for group, _ in self._broker.unsettled())
        parts = [f"{outbox} in the outbox"] if outbox else []
        parts += [f"{count} for '{group}'" for group, count in groups.items()]
        parts += [f"{in_hand} in hand"] if in_hand else []
        return ", ".join(parts) or "work keeps arriving"

    async def check(self) -> None:
        """Refuse dead letters that the test did not look at: a handler that fails must not pass in silence."""
        unseen = [letter for service, letter in await self._letters(LetterState.DEAD) if (service, letter.position) not in self._seen_dead]
        if unseen:
            first = unseen[0]
            text = f"{len(unseen)} messages failed for good, first '{first.type}': {first.error}"
            raise AssertionError(f"{text} (await run.dead() in the test where that is meant).")


@asynccontextmanager
async def settled(
    app: App,
    *,
    stubs: Mapping[Operation[Any, Any], Callable[[Any, Any], Any]] | None = None,
    engine: Engine | None = None,
    folder: Path | None = None,
    runtime: Runtime | None = None,
    overrides: Mapping[type[Any], object] | None = None,
) -> AsyncGenerator[Run]:
    """Run a copy of an app for one test, which settles at the end of the block.

    The copy has a broker of its own, databases in a temporary folder, a free port and a clock that stands still until
    `run.advance`. A dead letter that nobody looked at fails the test.

    Args:
        app: The app as it is declared; it stays as it is.
        stubs: Neighbours that are not part of the app: operation to `async def (ctx, request) -> response`, or one that
            yields. The other operations of their contracts answer UNIMPLEMENTED.
        engine: `memory` (default) or `nats`, the real embedded server; LINKSPAN_TEST_BROKER where it is left out.
        folder: Where databases and the NATS server's files go; by default a folder that is removed at the end.
        runtime: A clock, random source and ids of one's own, such as `linkspan.runtime.system()`.
        overrides: Resources by type, in the place of the lifespans'.
    """
    watching = _Watching()
    clock: FakeClock | None = None
    if runtime is None:
        runtime, clock = fake_runtime()
    async with AsyncExitStack() as stack:
        data = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="linkspan-test-")))
        broker = WatchedBroker(await _open(stack, engine or os.environ.get(ENGINE) or "memory", data, runtime))
        copy = app.variant(
            *_stub_services(stubs or {}),
            broker=broker,
            store=f"sqlite:///{data}/{{service}}.db",
            http="127.0.0.1:0",
            data=data,
            blobs=app.claims.elsewhere(f"file:{quote(str(data / 'blobs'))}"),
            runtime=runtime,
            inner=[watching],
            **({"overrides": overrides} if overrides else {}),
        )
        await stack.enter_async_context(copy)
        client = await stack.enter_async_context(copy.client("test", owns="*"))
        run = Run(copy, client, broker, clock, watching)
        yield run
        await run.settle()
        await run.check()


async def _open(stack: AsyncExitStack, engine: str, data: Path, runtime: Runtime) -> Broker:
    if engine not in get_args(Engine):
        raise SetupError(f"The test broker '{engine}' is not known: take memory or nats.")
    if engine == "nats":
        from linkspan.brokers.embedded import embedded_nats  # noqa: PLC0415 - only where it is used

        server = await stack.enter_async_context(embedded_nats(data / "nats"))
        broker = broker_for(server.url, runtime, user=server.user, password=server.password, options={"sync_interval": server.sync})
    else:
        broker = broker_for("memory://", runtime)
    await broker.open()
    stack.push_async_callback(broker.aclose)
    return broker


def _stub_services(stubs: Mapping[Operation[Any, Any], Callable[[Any, Any], Any]]) -> list[Service]:
    """Make a service of each contract that has stubs."""
    contracts: dict[type[ServiceContract], None] = {}
    for operation in stubs:
        contracts[_contract_of(operation)] = None
    services: list[Service] = []
    for contract in contracts:
        service = Service(f"stub-{contract.full_name.replace('.', '-').replace('_', '-').lower()}", contract, owns=())
        for operation in contract.operations:
            handles: Any = service.handles
            handles(operation)(_as_handler(operation, stubs.get(operation)))
        services.append(service)
    return services


def _contract_of(operation: Operation[Any, Any]) -> type[ServiceContract]:
    for contract in ServiceContract.__subclasses__():
        if "full_name" in vars(contract) and operation in contract.operations:  # a refused class stays until it is collected
            return contract
    raise SetupError(f"{operation!r} cannot be stubbed: name an operation of a ServiceContract.")


def _as_handler(operation: Operation[Any, Any], stub: Callable[[Any, Any], Any] | None) -> Any:
    missing = Error(Code.UNIMPLEMENTED, f"'{operation.full_name}' has no stub in this test: add one to stubs.")

    async def handler(ctx: Context, request: Any) -> Any:
        if stub is None:
            raise missing
        return await stub(ctx, request)

    async def streaming(ctx: Context, request: Any) -> AsyncGenerator[Any]:
        if stub is None:
            raise missing
        async for response in stub(ctx, request):
            yield response

    return streaming if operation.server_streaming else handler
