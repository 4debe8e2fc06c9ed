"""A small system for tests of the durable path: one service publishes, one reacts; memory broker, real SQLite, fake clock."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass, field as attribute
from typing import TYPE_CHECKING, Any

from linkspan import App, Contract, Event, Limits, Message, Service, ServiceContract, command, field, query
from linkspan.brokers.memory import Faults, MemoryBroker, MemoryLog
from linkspan.testing.clock import FakeClock, fake_runtime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from linkspan import Context
    from linkspan.incoming.consumer import Consumer
    from linkspan.ports import Runtime, Store

contract = Contract("durable.test.v1")


class Placed(Event):
    """An order was placed."""

    order: str = field(1, key=True)
    number: int = field(2)
    note: str = field(3, default="", pii=True)


class Noted(Event):
    """A reaction to an order."""

    order: str = field(1, key=True)
    number: int = field(2)


class Charge(Message):
    """Ask for money."""

    order: str = field(1, key=True)
    cents: int = field(2)


class Receipt(Message):
    """Say that it was paid."""

    order: str = field(1)


class Payments(ServiceContract):
    charge = command(Charge, Receipt, expires=60.0)
    find = query(Charge, Receipt)


EFFECTS = "create table effect (position integer primary key, key text, number integer, attempt integer)"
PLACED_TOPIC = "durable.test.v1.events"
PATIENCE = float(os.environ.get("LINKSPAN_TEST_PATIENCE", "10"))
"""Seconds that `until` waits; less where a mutant is tried, which most often never gets there."""


@dataclass
class System:
    """What a test holds in its hands."""

    app: App
    clock: FakeClock
    runtime: Runtime
    log: MemoryLog
    broker: MemoryBroker
    faults: Faults
    seen: list[tuple[str, int, int]] = attribute(default_factory=list[tuple[str, int, int]])

    @property
    def store(self) -> Store:
        store = self.app.running["mail"].store
        assert store is not None
        return store

    @property
    def mail(self) -> Consumer:
        return next(each for each in self.app.running["mail"].consumers if each.topic == PLACED_TOPIC)

    async def publish(self, *events: tuple[str, int]) -> None:
        """Publish events through the outbox of `orders`, each in a transaction of its own."""
        orders = next(each for each in self.app.services if each.name == "orders")
        for order, number in events:
            async with self.app.transaction(orders) as ctx:
                await ctx.publish(Placed(order=order, number=number))

    async def effects(self, sql: str = "select key, number from effect order by position") -> list[tuple[Any, ...]]:
        return await self.store.read(sql)


async def until(true: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    """Let the loop and the store's thread work until something is true; fail when that takes `PATIENCE`."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = true()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0)
    raise AssertionError(what)


Handler = "Callable[[Context, Placed], Awaitable[None]]"


async def note(ctx: Context, event: Placed) -> None:
    """Record the effect: what most tests want of a handler."""
    ctx.tx.record("insert into effect (key, number, attempt) values (?, ?, ?)", event.order, event.number, ctx.attempt)


@asynccontextmanager
async def system(
    folder: Path,
    handler: Any = note,
    *,
    limits: Limits | None = None,
    log: MemoryLog | None = None,
    clock: FakeClock | None = None,
    **more: Any,
) -> AsyncIterator[System]:
    """Run `orders` and `mail`, which reacts to Placed with the handler."""
    runtime, made = fake_runtime(seed=1 if log is None else 2)  # other ids after a restart
    if clock is not None:
        runtime = type(runtime)(clock, runtime.random, runtime.ids, runtime.reached)
    log = log or MemoryLog()
    faults = Faults()
    broker = MemoryBroker(runtime=runtime, faults=faults, log=log)
    orders = Service("orders", owns=[Placed], batches=more.pop("batches", None))
    mail = Service("mail", Payments, migrations=[EFFECTS], limits=limits or Limits(), **more.pop("mail", {}))
    mail.on(Placed, once=more.pop("once", True), **more.pop("on", {}))(handler)

    async def charge(ctx: Context, request: Charge) -> Receipt:
        ctx.tx.record("insert into effect (key, number, attempt) values (?, ?, ?)", request.order, request.cents, ctx.attempt)
        return Receipt(order=request.order)

    async def find(_ctx: Context, request: Charge) -> Receipt:
        return Receipt(order=request.order)

    mail.handles(Payments.charge)(more.pop("charge", charge))
    mail.handles(Payments.find)(more.pop("find", find))
    await broker.open()
    app = App(orders, mail, broker=broker, http="127.0.0.1:0", data=folder, runtime=runtime, **more)
    async with app:
        yield System(app, clock or made, runtime, log, broker, faults)
    await broker.aclose()
