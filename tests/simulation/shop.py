"""Two services in simulated time: orders are placed, a ledger reacts and commands orders to close them; every effect is a row.

One seed decides the load, every fault and every order of events. `run(seed, folder)` returns what was done and what was broken.
"""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from linkspan import App, Contract, Error, Event, Limits, Message, Service, ServiceContract, command, field as proto
from linkspan.ports import LetterState
from linkspan.testing.history import Entry, Kind, Violation, check
from linkspan.testing.simulation import Process, World

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import Context
    from linkspan.ports import Store

contract = Contract("sim.shop.v1")

KEYS = 4
PLACES = 40
CALM = 20.0
"""Simulated seconds of faults; then everything is mended and must come to rest."""
LIMITS = Limits(inline=2, parked=(0.5, 1.0), backoff=0.05, timeout=5.0)


class OrderPlaced(Event):
    key: str = proto(1, key=True)
    number: int = proto(2)
    plan: str = proto(3)


class Close(Message):
    key: str = proto(1, key=True)
    number: int = proto(2)
    plan: str = proto(3)


class Closed(Message):
    pass


class Orders(ServiceContract):
    close = command(Close, Closed)


TABLE = "create table effect (position integer primary key, what text, key text, number integer)"
EFFECT = "insert into effect (what, key, number) values (?, ?, ?)"
LAST = "select max(number) from effect where what = ? and key = ?"
PLANS = ("", "", "", "", "slow", "flaky", "checked", "parked", "dead", "deadly")


@dataclass
class Shop:
    """What the simulated services share with the test: the history, and whether what made messages fail has been mended."""

    chance: random.Random
    mended: bool = False
    placed: int = 0
    numbers: dict[str, int] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)


def obstruct(ctx: Context, shop: Shop, process: Process, plan: str) -> None:
    """Fail as planned until it is mended."""
    if plan == "flaky" and ctx.attempt == 1:
        raise ConnectionError
    if shop.mended:
        return
    if plan == "parked" and ctx.attempt < 4:
        raise ConnectionError
    if plan == "dead":
        raise Error.refused("Not before it is mended.")
    if plan == "deadly" and shop.chance.random() < 0.5:
        process.kill()
        raise ConnectionError


def orders_service(shop: Shop, process: Process) -> Service:
    orders = Service("orders", Orders, migrations=[TABLE], limits=LIMITS, owns=[OrderPlaced])

    @orders.handles(Orders.close)
    async def close(ctx: Context, request: Close) -> Closed:
        ctx.tx.record(EFFECT, "close", request.key, request.number)
        obstruct(ctx, shop, process, {"parked": "flaky", "flaky": "parked"}.get(request.plan, ""))
        return Closed()

    return orders


def ledger_service(shop: Shop, process: Process) -> Service:
    ledger = Service("ledger", migrations=[TABLE], limits=LIMITS)

    @ledger.on(OrderPlaced)
    async def react(ctx: Context, event: OrderPlaced) -> None:
        if event.plan == "checked":
            await ctx.tx.execute(LAST, "react", event.key)
            await ctx.tx.execute(EFFECT, "react", event.key, event.number)
        else:
            ctx.tx.record(EFFECT, "react", event.key, event.number)
        await ctx.send(Orders.close, Close(key=event.key, number=event.number, plan=event.plan))
        if event.plan == "slow":
            await process.runtime.clock.sleep(shop.chance.uniform(0.0, 0.3))
        obstruct(ctx, shop, process, event.plan)

    return ledger


async def place_all(shop: Shop, process: Process, app: App, orders: Service) -> None:
    """Place orders one after the other; what is told as placed is acknowledged."""
    while shop.placed < PLACES:
        await process.runtime.clock.sleep(shop.chance.expovariate(4.0))
        key = f"k{shop.chance.randrange(KEYS)}"
        number = shop.numbers[key] = shop.numbers.get(key, 0) + 1
        plan = shop.chance.choice(PLANS)
        shop.placed += 1
        shop.entries.append(Entry(Kind.INVOKED, f"{key}/{number}", key, number))
        async with app.transaction(orders) as ctx:
            if shop.chance.random() < 0.3:
                await ctx.tx.execute(EFFECT, "place", key, number)
            else:
                ctx.tx.record(EFFECT, "place", key, number)
            await ctx.publish(OrderPlaced(key=key, number=number, plan=plan))
        shop.entries.append(Entry(Kind.ACKNOWLEDGED, f"{key}/{number}", key, number))


async def redrive(store: Store, process: Process) -> None:
    """Ask for every dead letter to be tried again."""
    dead = await store.letters(states=[LetterState.DEAD])
    if dead:
        await store.redrive([letter.position for letter in dead], who="simulation", why="mended", at=process.runtime.clock.now())


def lives(shop: Shop) -> dict[str, Any]:
    """Return what each process does with its life."""

    async def live(process: Process, service: Service, *, places: bool) -> None:
        async with process.app(lambda **given: App(service, **given)) as app:
            if places:
                await place_all(shop, process, app, service)
            while True:
                await process.runtime.clock.sleep(1.0)
                if shop.mended:
                    await redrive(next(iter(app.stores.values())), process)

    async def orders(process: Process) -> None:
        await live(process, orders_service(shop, process), places=True)

    async def ledger(process: Process) -> None:
        await live(process, ledger_service(shop, process), places=False)

    return {"orders": orders, "ledger": ledger}


POINTS = (
    "store.commit.before",
    "store.commit.after",
    "relay.publish.before",
    "relay.publish.after",
    "relay.batch.before",
    "relay.batch.after",
    "broker.publish.before",
    "broker.publish.after",
    "broker.ack.before",
    "broker.ack.after",
    "inbox.claim.before",
    "inbox.claim.after",
    "outbox.delete.before",
    "outbox.delete.after",
    "handler.run.before",
    "handler.run.after",
    "retry.wait.before",
    "retry.wait.after",
    "letter.count.before",
    "letter.count.after",
    "letter.run.after",
)


def trouble(world: World, process: Process) -> None:
    """Break something now, and again a little later, as long as it is not calm."""
    chance = world.chance
    if world.time.now > CALM:
        return
    world.later(chance.expovariate(0.8), trouble, world, process)
    if not process.alive:
        process.start()
        return
    what = chance.random()
    if what < 0.35:
        process.kill()
        world.later(chance.uniform(0.0, 2.0), revive, process)
    elif what < 0.7:
        process.die_at(chance.choice(POINTS), chance.randrange(1, 6))
    elif what < 0.8:
        world.log.stop()
        world.later(chance.uniform(0.0, 3.0), world.log.start)


def revive(process: Process) -> None:
    """Start what is dead."""
    if not process.alive:
        process.start()


def watch(world: World, processes: list[Process]) -> None:
    """Start whoever is dead, as a supervisor does."""
    for process in processes:
        revive(process)
    world.later(1.0, watch, world, processes)


@dataclass
class Result:
    """What one seed did: deaths, steps, effects; the history's digest; and what was broken."""

    seed: int
    digest: str
    deaths: int
    steps: int
    effects: int
    violations: list[Violation]


def run(seed: int, folder: Path) -> Result:
    """Live through one seed's history and check it."""
    with World(seed, folder) as world:
        shop = Shop(random.Random(f"{seed}/shop"))
        faults = world.faults
        for name in ("lost_acks", "lost_confirmations", "lost_publishes", "duplicates"):
            setattr(faults, name, world.chance.choice((0.0, 0.0, 0.1, 0.3)))
        faults.delay = world.chance.choice((0.0, 0.001, 0.05))
        processes = [world.process(name, life) for name, life in lives(shop).items()]
        for process in processes:
            world.later(world.chance.expovariate(1.0), trouble, world, process)
        world.run(CALM)
        for name in ("lost_acks", "lost_confirmations", "lost_publishes", "duplicates"):
            setattr(faults, name, 0.0)
        shop.mended = True
        world.log.start()
        watch(world, processes)
        quiet = world.run(900.0, lambda: settled(world, shop, folder))
        world.run(60.0)
        effects = {name: rows(folder / f"{name}.db") for name in ("orders", "ledger")}
        return Result(seed, world.digest, world.deaths, world.steps, sum(map(len, effects.values())), judged(shop, effects, quiet=quiet))


def settled(world: World, shop: Shop, folder: Path) -> bool:
    """Tell whether nothing is left to do."""
    if shop.placed < PLACES:
        return False
    for name in ("orders", "ledger"):
        with closing(sqlite3.connect(f"file:{folder / name}.db?mode=ro", uri=True)) as database:
            if database.execute("select exists (select 1 from linkspan_outbox) or exists (select 1 from linkspan_letter)").fetchone()[0]:
                return False
    return all(group.floor == len(topic.records) for topic in world.log.topics.values() for group in topic.groups.values())


def rows(path: Path) -> list[tuple[str, str, int]]:
    """Return a database's effects in their order."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute("select what, key, number from effect order by position").fetchall()


def judged(shop: Shop, effects: dict[str, list[tuple[str, str, int]]], *, quiet: bool) -> list[Violation]:
    """Check each hop against what had to come of it."""
    placed = [(key, number) for what, key, number in effects["orders"] if what == "place"]
    found: list[Violation] = [] if quiet else [Violation("lost", "all", "", "It did not come to rest.")]
    hops = (
        ("place", "orders", shop.entries),
        *((what, where, asked(placed)) for what, where in (("react", "ledger"), ("close", "orders"))),
    )
    for what, where, entries in hops:
        seen = [Entry(Kind.EFFECT, f"{key}/{number}", key, number, consumer=what) for kind, key, number in effects[where] if kind == what]
        found += check([*entries, *seen], [what])
    return found


def asked(placed: list[tuple[str, int]]) -> list[Entry]:
    """Return what each hop owes: what was committed has its effect, once."""
    return [Entry(Kind.ACKNOWLEDGED, f"{key}/{number}", key, number) for key, number in placed]
