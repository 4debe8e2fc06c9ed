"""One of many instances of a service on PostgreSQL and NATS: `many_child.py NAME NATS_URL STORE_URL WRITERS KEYS PAUSE`.

It gives every event an effect, writes events itself until the table `halt` has a row, and ends in order by SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from typing import TYPE_CHECKING

from linkspan import App, Context, Error, Limits, Service
from tests.unit.app_shop import Placed

if TYPE_CHECKING:
    from linkspan.ports import Store

NAME, NATS, STORE, WRITERS, KEYS, PAUSE = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6])
TABLES = """
    create table written (key text primary key, last integer not null);
    create table effect (
        key text, number integer, who text, at timestamptz default clock_timestamp(), primary key (key, number)
    );
    create table inverted (key text, number integer, who text);
    create table halt (now boolean);
    create table asked (key text primary key, what text);
"""
LATER = "insert into inverted select ?::text, ?::int, ?::text where exists (select 1 from effect where key = ? and number > ?)"

shop = Service("shop", store=STORE, owns=[Placed], migrations=[TABLES], limits=Limits(parked=(1.0, 2.0, 3.0)))


@shop.on(Placed)
async def handle(ctx: Context, event: Placed) -> None:
    """Write down the effect, and whether a later one of its key was there before."""
    number, _, order = event.note.partition(" ")
    if order == f"stop {NAME}":
        os.kill(os.getpid(), signal.SIGSTOP)  # goes on here when somebody says so
    if PAUSE:
        await asyncio.sleep(PAUSE)
    ctx.tx.record(LATER, event.order, int(number), NAME, event.order, int(number))
    ctx.tx.record("insert into effect (key, number, who) values (?, ?, ?)", event.order, int(number), NAME)


async def write(app: App, store: Store, chance: random.Random) -> None:
    """Write events of keys that are asked for unevenly, each key's numbers in the order of the commits."""
    while not await store.read("select 1 from halt"):
        asked = [row[0] for row in await store.read("select key from asked")]
        for key in asked or [f"k{min(int(chance.paretovariate(0.7)), KEYS)}" for _ in range(20)]:
            try:
                async with app.transaction(shop) as ctx:
                    what = await ctx.tx.execute("delete from asked where key = ? returning what", key) if asked else []
                    ((number,),) = await ctx.tx.execute(
                        "insert into written values (?, 1) on conflict (key) do update set last = written.last + 1 returning last", key
                    )
                    await ctx.publish(Placed(order=key, note=f"{number} {what[0][0] if what else ''}"))
            except Error as error:
                print("not written:", error.code.value, error.message, file=sys.stderr, flush=True)


async def main() -> None:
    """Run until SIGTERM."""
    app, ended = App(shop, broker=NATS, http="127.0.0.1:0"), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with app:
        print("running", flush=True)
        store = app.running["shop"].store
        assert store is not None
        writers = [asyncio.create_task(write(app, store, random.Random(f"{NAME}{number}"))) for number in range(WRITERS)]
        await ended.wait()
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
    print("ended", flush=True)


if os.environ.get("LINKSPAN_TEST_LOGS"):
    import logging

    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s {NAME} %(name)s %(message)s %(levelname)s")
asyncio.run(main())
