"""Services on kafka://: events through the outbox to another service, while the broker is killed in between."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from linkspan import App, Context, Contract, Event, Service, field
from linkspan.brokers import broker_for
from linkspan.runtime import system
from tests.integration.outage import outage_costs_no_message
from tests.kafka.servers import KafkaCluster, needs_kafka

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

contract = Contract("kafka.story.v1")

EFFECTS = "create table effect (position integer primary key, key text, number integer)"
KEYS, EACH = 20, 30


class Placed(Event):
    """An order was placed."""

    order: str = field(1, key=True)
    number: int = field(2)


def services() -> tuple[Service, Service]:
    orders = Service("orders", owns=[Placed])
    mail = Service("mail", migrations=[EFFECTS])

    async def note(ctx: Context, event: Placed) -> None:
        ctx.tx.record("insert into effect (key, number) values (?, ?)", event.order, event.number)

    mail.on(Placed)(note)
    return orders, mail


async def place(app: App, orders: Service, numbers: range) -> None:
    """Publish one event of each key per number, each in a transaction of its own."""
    for number in numbers:
        for key in range(KEYS):
            async with app.transaction(orders) as ctx:
                await ctx.publish(Placed(order=f"order-{key}", number=number))


async def effects(app: App) -> list[tuple[Any, ...]]:
    store = app.running["mail"].store
    assert store is not None
    return await store.read("select key, number from effect order by position")


async def until(done: Callable[[list[tuple[Any, ...]]], bool], app: App) -> list[tuple[Any, ...]]:
    async with asyncio.timeout(90):
        while not done(rows := await effects(app)):  # noqa: ASYNC110 - another process tells nothing
            await asyncio.sleep(0.05)
    return rows


def assert_whole(rows: list[tuple[Any, ...]], each: int) -> None:
    """Nothing lost, nothing twice, in order per key."""
    by_key: dict[str, list[int]] = defaultdict(list)
    for key, number in rows:
        by_key[key].append(number)
    assert by_key == {f"order-{key}": list(range(each)) for key in range(KEYS)}


async def test_nothing_is_lost_doubled_or_reordered_when_the_broker_is_killed(tmp_path: Path) -> None:
    needs_kafka()
    async with KafkaCluster(tmp_path / "kafka") as cluster:
        orders, mail = services()
        async with App(orders, mail, broker=cluster.url, http="127.0.0.1:0", data=tmp_path / "app") as app:
            publishing = asyncio.create_task(place(app, orders, range(EACH)))
            await until(lambda rows: len(rows) > KEYS, app)
            cluster.kill()
            await asyncio.sleep(0.5)  # more is committed while nobody takes it
            await cluster.start()
            await publishing
            rows = await until(lambda rows: len(rows) >= KEYS * EACH, app)

        assert_whole(rows, EACH)


async def test_a_service_goes_on_where_it_stood(tmp_path: Path) -> None:
    needs_kafka()
    async with KafkaCluster(tmp_path / "kafka") as cluster:
        for start in (0, 5):
            orders, mail = services()
            async with App(orders, mail, broker=cluster.url, http="127.0.0.1:0", data=tmp_path / "app") as app:
                await place(app, orders, range(start, start + 5))
                rows = await until(lambda rows, start=start: len(rows) >= KEYS * (start + 5), app)  # type: ignore[misc]  # mypy cannot infer a lambda with a default

        assert_whole(rows, 10)


async def test_a_cluster_of_three_goes_on_without_one(tmp_path: Path) -> None:
    needs_kafka()
    racks = [{"broker.rack": rack} for rack in "abc"]
    async with KafkaCluster(tmp_path / "kafka", brokers=3, each=racks) as cluster:
        orders, mail = services()
        async with App(orders, mail, broker=cluster.url, http="127.0.0.1:0", data=tmp_path / "app") as app:
            found = (await app.attest())[0]
            assert (found.engine, found.level, found.facts["replicas"], found.facts["elr"]) == ("kafka", "power", "3", "on"), found
            publishing = asyncio.create_task(place(app, orders, range(EACH)))
            await until(lambda rows: len(rows) > KEYS, app)
            cluster.servers[0].kill()
            await publishing
            rows = await until(lambda rows: len(rows) >= KEYS * EACH, app)

        assert_whole(rows, EACH)


async def test_outage_of_a_dependency_costs_no_message(tmp_path: Path) -> None:
    needs_kafka()
    async with KafkaCluster(tmp_path / "kafka") as cluster:
        broker = broker_for(cluster.url, system())
        await broker.open()
        await outage_costs_no_message(broker, tmp_path / "app")
        await broker.aclose()
