"""Two instances of a service on PostgreSQL and Kafka: lanes shared out, a broker killed, an instance gone."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import App, Context, Contract, Event, Service, field
from tests.integration.postgres_runner import PostgresRunner
from tests.kafka.servers import KafkaCluster, needs_kafka

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

contract = Contract("kafka.instances.v1")

EFFECTS = "create table effect (position bigserial primary key, key text, number bigint, instance text)"
KEYS = 32


class Counted(Event):
    """Something was counted."""

    thing: str = field(1, key=True)
    number: int = field(2)


@pytest.fixture
def store() -> Iterator[str]:
    pytest.importorskip("asyncpg", reason="not run: asyncpg is not there")
    needs_kafka()
    runner = PostgresRunner()
    runner.start()
    yield runner.url() + "?schema={service}"
    runner.remove()


def instance(name: str, folder: Path, broker: str, store: str) -> tuple[App, Service]:
    source = Service("source", owns=[Counted])
    sink = Service("sink", migrations=[EFFECTS])

    async def note(ctx: Context, event: Counted) -> None:
        ctx.tx.record("insert into effect (key, number, instance) values (?, ?, ?)", event.thing, event.number, name)

    sink.on(Counted)(note)
    return App(source, sink, broker=broker, store=store, http="127.0.0.1:0", data=folder / name), source


async def count(app: App, source: Service, numbers: range) -> None:
    for number in numbers:
        for key in range(KEYS):
            async with app.transaction(source) as ctx:
                await ctx.publish(Counted(thing=f"thing-{key}", number=number))


async def effects(app: App, least: int) -> list[tuple[Any, ...]]:
    """Wait for so many effects and return them."""
    store = app.running["sink"].store
    assert store is not None
    rows: list[tuple[Any, ...]] = []
    async with asyncio.timeout(90):
        while len(rows) < least:
            rows = await store.read("select key, number, instance from effect order by position")
            await asyncio.sleep(0.1)
    return rows


async def test_instances_share_lanes_and_keep_order_while_the_broker_is_killed(tmp_path: Path, store: str) -> None:
    async with KafkaCluster(tmp_path / "kafka") as cluster:
        one, source = instance("one", tmp_path, cluster.url, store)
        two, _ = instance("two", tmp_path, cluster.url, store)
        async with one:
            await count(one, source, range(3))
            await effects(one, 3 * KEYS)
            async with two:
                counting = asyncio.create_task(count(one, source, range(3, 12)))
                await effects(one, 4 * KEYS)
                cluster.kill()
                await cluster.start()
                await counting
                await effects(one, 12 * KEYS)
                for start in range(12, 60):  # until the second one has its share
                    await count(one, source, range(start, start + 1))
                    rows = await effects(one, (start + 1) * KEYS)
                    if {row[2] for row in rows} == {"one", "two"}:
                        break
                last = start + 1
            await count(one, source, range(last, last + 2))
            rows = await effects(one, (last + 2) * KEYS)

    by_key: dict[str, list[int]] = defaultdict(list)
    for key, number, _ in rows:
        by_key[key].append(number)
    assert by_key == {f"thing-{key}": list(range(last + 2)) for key in range(KEYS)}
    assert {row[2] for row in rows} == {"one", "two"}
