"""Batches between services of several instances on PostgreSQL: once, and in order per key, while instances come and go."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import asyncpg
import nats

from linkspan import App, Batches, Context, Contract, Event, Service, field
from tests.integration.nats_runner import NatsRunner

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.postgres_runner import PostgresRunner

contract = Contract("batch.instances.v1")
KEYS = 100


class Counted(Event):
    key: str = field(1, key=True)
    number: int = field(2)


def services(counts_url: str, notes_url: str) -> tuple[Service, Service]:
    """Declare both services; each instance has its own."""
    table = "create table effect (position bigserial primary key, key text, number bigint)"
    counts = Service("counts", owns=[Counted], store=counts_url, batches=Batches())
    notes = Service("notes", store=notes_url, migrations=[table])

    @notes.on(Counted)
    async def note(ctx: Context, event: Counted) -> None:
        ctx.tx.record("insert into effect (key, number) values (?, ?)", event.key, event.number)

    return counts, notes


async def test_instances_of_both_sides_come_and_go(tmp_path: Path, postgres: PostgresRunner) -> None:
    urls = postgres.url(schema="batch_counts"), postgres.url(schema="batch_notes")
    async with NatsRunner(tmp_path) as server, AsyncExitStack() as stack:
        address = server.url.replace("//", f"//{server.user}:{server.password}@")

        async def instance(number: int) -> tuple[App, Service]:
            counts, notes = services(*urls)
            app = App(counts, notes, broker=address, data=tmp_path / f"i{number}", http="127.0.0.1:0")
            await app.start()
            return app, counts

        async def publish(app: App, counts: Service, start: int, end: int) -> None:
            for first in range(start, end, 250):
                async with app.transaction(counts) as ctx:
                    for number in range(first, first + 250):
                        await ctx.publish(Counted(key=f"k{number % KEYS}", number=number))

        first = await instance(1)
        stack.push_async_callback(first[0].aclose)
        await publish(*first, 0, 500)
        second = await instance(2)
        stack.push_async_callback(second[0].aclose)
        await publish(*second, 500, 1_000)
        await publish(*first, 1_000, 1_500)
        await first[0].aclose()
        await publish(*second, 1_500, 2_000)

        rows = await effects(urls[1], 2_000)
        connection = await nats.connect(address)
        stored = sum(each.state.messages for each in await connection.jetstream().streams_info())
        await connection.close()

    assert len(rows) == 2_000
    for key in range(KEYS):
        assert [row["number"] for row in rows if row["key"] == f"k{key}"] == list(range(key, 2_000, KEYS))
    assert stored < 1_200


async def effects(url: str, count: int) -> list[Any]:
    """Wait until the effects are there, and return them as they were committed."""
    connection = await asyncpg.connect(url.partition("?")[0])
    try:
        async with asyncio.timeout(50):
            while await connection.fetchval("select count(*) from batch_notes.effect") < count:  # noqa: ASYNC110 - a database says nothing
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.2)  # one too many would come now
        return list(await connection.fetch("select key, number from batch_notes.effect order by position"))
    finally:
        await connection.close()
