"""A consumer whose poison ends its process: `killers_child.py FOLDER NATS_URL STORE_URL`; it stops by itself when all else is done."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from linkspan import App, Context, Limits, Service
from linkspan.ports import LetterState
from tests.unit.app_shop import Placed

FOLDER, NATS, STORE = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
POISON, NEIGHBOURS = ("poison1", "poison2"), 24
RUNS = FOLDER / "runs.txt"

mail = Service(
    "mail",
    store=STORE,
    migrations=["create table handled (key text, note text, id text)"],
    limits=Limits(inline=2, parked=(0.3, 0.3), concurrency=8),
)


@mail.on(Placed)
async def handle(ctx: Context, event: Placed) -> None:
    """Take a while, as neighbours in hand do; write down each run where no crash undoes it."""
    with RUNS.open("a", encoding="utf-8") as file:
        file.write(f"{event.order} {event.note} {ctx.attempt} {time.monotonic()} {os.getpid()}\n")
    await asyncio.sleep(0.05)
    if event.order in POISON and event.note == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    await asyncio.sleep(0.1)
    await ctx.tx.execute("insert into handled values (?, ?, ?)", event.order, event.note, ctx.id)


async def done(app: App) -> bool:
    """Tell whether each neighbour had its effect and each poison is dead."""
    store = app.running["mail"].store
    assert store is not None
    ((count,),) = await store.read("select count(*) from handled")
    dead = await store.letters(states=[LetterState.DEAD])
    return count == 2 * NEIGHBOURS and len(dead) == len(POISON)


async def main() -> None:
    orders = Service("orders", owns=[Placed], store=f"sqlite:///{FOLDER}/orders.db")
    app = App(orders, mail, broker=NATS, data=FOLDER, http="127.0.0.1:0")
    async with app:
        if not RUNS.exists():
            async with app.transaction(orders) as ctx:
                for number in range(2):
                    for order in (*POISON, *(f"good{each}" for each in range(NEIGHBOURS))):
                        await ctx.publish(Placed(order=order, note=str(number)))
        while not await done(app):  # noqa: ASYNC110 - the database says nothing
            await asyncio.sleep(0.05)


asyncio.run(main())
