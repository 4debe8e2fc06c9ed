"""Two services whose every effect is a row with its number: what a crash loses, doubles or reorders stands in their tables.

    driver --direct--> orders --OrderPlaced--> ledger --Close (durable command)--> orders
           --durable->                               --Noted (event)------------> orders

A request's `plan` says how its handlers behave, so that the same workload reaches every part of the durable path.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from linkspan import App, Batches, Blobs, Code, Context, Contract, Error, Event, Limits, Message, Service, ServiceContract, command, field

if TYPE_CHECKING:
    from pathlib import Path

contract = Contract("crash.orders.v1")

LATER = 0.05
"""Seconds that messages of the plan `later` are scheduled for."""

LIMITS = Limits(inline=3, parked=(0.2, 0.4, 0.6), backoff=0.01)


class Place(Message):
    key: str = field(1, key=True)
    id: str = field(2)
    number: int = field(3)
    plan: str = field(4)
    fan: int = field(5)
    burst: bool = field(6)


class Placed(Message):
    id: str = field(1)


class Close(Message):
    key: str = field(1, key=True)
    id: str = field(2)
    number: int = field(3)
    plan: str = field(4)


class OrderPlaced(Event):
    key: str = field(1, key=True)
    id: str = field(2)
    number: int = field(3)
    plan: str = field(4)


class Noted(Event):
    key: str = field(1, key=True)
    id: str = field(2)
    number: int = field(3)


class Orders(ServiceContract):
    place = command(Place, Placed)
    place_checked = command(Place, Placed)
    close = command(Close, Placed)


def parts(request: Place) -> list[tuple[str, str, int]]:
    """Return (id, key, number) of what a request asks for: one thing, `fan` things of as many keys, or a `burst` of them for one key."""
    if not request.fan:
        return [(request.id, request.key, request.number)]
    if request.burst:
        first = (request.number - 1) * request.fan
        return [(f"{request.id}/{part}", request.key, first + part) for part in range(1, request.fan + 1)]
    return [(f"{request.id}/{part}", f"{request.key}/{part}", request.number) for part in range(1, request.fan + 1)]


TABLE = "create table effect (position integer primary key, what text, id text, key text, number integer)"
POSTGRES_TABLE = TABLE.replace("integer primary key", "bigserial primary key")
EFFECT = "insert into effect (what, id, key, number) values (?, ?, ?, ?)"
LAST = "select max(number) from effect where what = ? and key = ?"


class Repaired:
    """A file that says whether what made messages fail for good has been repaired; it outlives every process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __bool__(self) -> bool:
        return self._path.exists()


def obstruct(ctx: Context, plan: str, number: int) -> None:
    """Fail as planned: `flaky` ends within the inline tries, `parked` after one parked round, `dead` and `deadly` once it is repaired.

    Only every fourth of a key fails, so that those behind it would gladly overtake it.
    """
    if number % 4 != 1:
        return
    fails = {"flaky": 2, "parked": 4}.get(plan, 0)
    if ctx.attempt <= fails:
        raise Error(Code.UNAVAILABLE, "Not yet.")
    if plan == "deadly" and not ctx.resource(Repaired):
        os._exit(137)
    if plan == "dead" and not ctx.resource(Repaired):
        raise Error.refused("Not before it is repaired.")


def padded(plan: str) -> str:
    """Return a plan that is too long for a message where it is to be large; `obstruct` and `wait` know it by its first word."""
    return plan + " " * 2_000 if plan == "large" else plan


def wait(plan: str) -> float | None:
    """Return after how many seconds a plan's messages leave, None for at once."""
    return LATER if plan == "later" else None


def services(repaired: Path, table: str = TABLE) -> tuple[Service, Service]:
    """Declare both services; each run of a test has its own."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def lifespan():  # type: ignore[no-untyped-def] # noqa: ANN202 - an async context manager of one resource
        yield Repaired(repaired)

    orders = Service("orders", Orders, migrations=[table], limits=LIMITS, lifespan=lifespan)
    batches = Batches([f"{contract.package}.commands"])  # events go singly, or in atomic batches
    ledger = Service("ledger", migrations=[table], limits=LIMITS, lifespan=lifespan, owns=[Noted], batches=batches)

    @orders.handles(Orders.place)
    async def place(ctx: Context, request: Place) -> Placed:
        for id_, key, number in parts(request):
            ctx.tx.record(EFFECT, "place", id_, key, number)
            await ctx.publish(OrderPlaced(key=key, id=id_, number=number, plan=padded(request.plan)), after=wait(request.plan))
        return Placed(id=request.id)

    @orders.handles(Orders.place_checked)
    async def place_checked(ctx: Context, request: Place) -> Placed:
        await ctx.tx.execute(LAST, "place", request.key)
        await ctx.tx.execute(EFFECT, "place", request.id, request.key, request.number)
        await ctx.publish(OrderPlaced(key=request.key, id=request.id, number=request.number, plan=request.plan))
        return Placed(id=request.id)

    @ledger.on(OrderPlaced)
    async def react(ctx: Context, event: OrderPlaced) -> None:
        if event.plan == "checked":
            await ctx.tx.execute(LAST, "react", event.key)
            await ctx.tx.execute(EFFECT, "react", event.id, event.key, event.number)
        else:
            ctx.tx.record(EFFECT, "react", event.id, event.key, event.number)
        close = Close(key=event.key, id=event.id, number=event.number, plan=event.plan)
        await ctx.send(Orders.close, close, after=wait(event.plan))
        if event.plan == "slow":
            await asyncio.sleep(0.002)
        obstruct(ctx, event.plan, event.number)
        await ctx.publish(Noted(key=event.key, id=event.id, number=event.number))

    @orders.handles(Orders.close)
    async def close(ctx: Context, request: Close) -> Placed:
        ctx.tx.record(EFFECT, "close", request.id, request.key, request.number)
        obstruct(ctx, {"parked": "flaky", "flaky": "parked"}.get(request.plan, request.plan), request.number)
        return Placed(id=request.id)

    @orders.on(Noted)
    async def note(ctx: Context, event: Noted) -> None:
        ctx.tx.record(EFFECT, "note", event.id, event.key, event.number)

    return orders, ledger


HOPS = (("place", "orders", ""), ("react", "ledger", "place"), ("close", "orders", "react"), ("note", "orders", "react"))
"""Each kind of effect: in whose database it stands, and which effect it follows from."""

GROUPS = (("crash.orders.v1.commands", "orders"), ("crash.orders.v1.events", "orders"), ("crash.orders.v1.events", "ledger"))


def make_app(folder: Path, broker: str, http: str, *, runtime: object, store: str = "") -> App:
    """Put the app together; a process starts one of its services, or both."""
    orders, ledger = services(folder / "repaired", POSTGRES_TABLE if store.startswith("postgres") else TABLE)
    blobs = Blobs(f"file:{folder / 'blobs'}", above=1_024)
    return App(orders, ledger, broker=broker or None, http=http, store=store or None, data=folder, blobs=blobs, runtime=runtime)  # type: ignore[arg-type]
