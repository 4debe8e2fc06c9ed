"""One of several instances of a service on PostgreSQL and NATS: `python -m proof.order_app NAME NATS_URL STORE_URL WRITERS KEYS TARGET`.

Its writers commit events of unevenly asked-for keys, numbered per key in the order of commits, each transaction several at once, until
so many were written; each event gets an effect. It ends by SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING

import uvloop

from linkspan import App, Context, Contract, Error, Event, Service, field

if TYPE_CHECKING:
    from linkspan.ports import Store

NAME, NATS, STORE = sys.argv[1:4]
WRITERS, KEYS, TARGET = (int(each) for each in sys.argv[4:7])
AT_ONCE = 10
"""Events of one transaction."""
AHEAD = 4_000
"""Events written and not handled yet, above which writers wait."""

contract = Contract("proof.order.v1")

TABLES = """
    create table written (key text primary key, last integer not null);
    create table effect (position bigserial primary key, key text not null, number integer not null, who text not null);
    create unique index effect_once on effect (key, number);
"""
WRITE = """
    insert into written select key, value::integer from json_each_text(?::json) order by key
    on conflict (key) do update set last = written.last + excluded.last returning key, last
"""


class Numbered(Event):
    """Something happened to a key, as its n-th."""

    key: str = field(1, key=True)
    number: int = field(2)


counted = Service("counted", store=STORE, owns=[Numbered], migrations=[TABLES])


@counted.on(Numbered)
async def handle(ctx: Context, event: Numbered) -> None:
    """Write down the effect."""
    ctx.tx.record("insert into effect (key, number, who) values (?, ?, ?)", event.key, event.number, NAME)


async def write(app: App, store: Store, chance: random.Random) -> None:
    """Write until there are enough."""
    names, weights = [f"k{rank}" for rank in range(1, KEYS + 1)], list(accumulate(1 / rank for rank in range(1, KEYS + 1)))
    while True:
        ((there, handled),) = await store.read("select (select coalesce(sum(last), 0) from written), (select count(*) from effect)")
        if there >= TARGET:
            return
        if there - handled > AHEAD:
            await asyncio.sleep(0.2)
            continue
        asked = Counter(chance.choices(names, cum_weights=weights, k=AT_ONCE))
        try:
            async with app.transaction(counted) as ctx:
                rows = await ctx.tx.execute(WRITE, json.dumps(asked))
                for key, last in rows:
                    for number in range(last - asked[key] + 1, last + 1):
                        await ctx.publish(Numbered(key=key, number=number))
        except Error as error:
            print("not written:", error.code.value, error.message, file=sys.stderr, flush=True)
            await asyncio.sleep(0.1)


async def main() -> None:
    """Run until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with App(counted, broker=NATS, http="127.0.0.1:0") as app:
        store = app.running["counted"].store
        assert store is not None
        print("running", flush=True)
        writers = [asyncio.create_task(write(app, store, random.Random())) for _ in range(WRITERS)]
        await ended.wait()
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
