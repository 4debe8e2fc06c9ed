"""Batches on a real nats-server: fewer messages, every effect once and in order, through kills of the server; tap shows single events."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import nats
import pytest

from linkspan import App, Batches, Context, Contract, Event, Service, field
from linkspan.cli.singly import singly
from linkspan.envelope import lane_of, read
from tests.integration.nats_runner import NatsRunner
from tests.unit.durable import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from linkspan.ports import Seen

contract = Contract("batch.nats.v1")
TOPIC = "batch.nats.v1.events"


class Counted(Event):
    key: str = field(1, key=True)
    number: int = field(2)


def address(server: NatsRunner) -> str:
    return server.url.replace("//", f"//{server.user}:{server.password}@")


@asynccontextmanager
async def running(server: NatsRunner, folder: Path, batches: Batches) -> AsyncGenerator[tuple[App, Service]]:
    counts = Service("counts", owns=[Counted], batches=batches)
    notes = Service("notes", migrations=["create table effect (position integer primary key, key text, number integer)"])

    @notes.on(Counted)
    async def note(ctx: Context, event: Counted) -> None:
        ctx.tx.record("insert into effect (key, number) values (?, ?)", event.key, event.number)

    async with App(counts, notes, broker=address(server), data=folder, http="127.0.0.1:0") as app:
        yield app, counts


async def effects(app: App) -> list[tuple[Any, ...]]:
    store = app.running["notes"].store
    assert store is not None
    return await store.read("select key, number from effect order by position")


async def publish(app: App, counts: Service, start: int, end: int) -> None:
    async with app.transaction(counts) as ctx:
        for number in range(start, end):
            await ctx.publish(Counted(key=f"k{number % 50}", number=number))


async def has_effects(app: App, count: int) -> None:
    async with asyncio.timeout(60):
        while len(await effects(app)) < count:  # noqa: ASYNC110 - a database says nothing
            await asyncio.sleep(0.01)


async def stored(server: NatsRunner) -> int:
    connection = await nats.connect(address(server))
    try:
        info = await connection.jetstream().streams_info()
        return sum(each.state.messages for each in info)
    finally:
        await connection.close()


@pytest.mark.parametrize("mixed", [False, True], ids=["by lane", "mixed"])
async def test_events_travel_in_few_messages_and_have_their_effects_once_and_in_order(tmp_path: Path, mixed: bool) -> None:
    async with NatsRunner(tmp_path) as server, running(server, tmp_path / "app", Batches(mixed=mixed)) as (app, counts):
        for start in range(0, 1_000, 250):
            await publish(app, counts, start, start + 250)
        await has_effects(app, 1_000)

        found = await effects(app)
        assert len(found) == 1_000
        for key in range(50):
            assert [number for name, number in found if name == f"k{key}"] == list(range(key, 1_000, 50))
        assert await stored(server) < (50 if mixed else 400)


async def test_a_server_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server, running(server, tmp_path / "app", Batches()) as (app, counts):
        for round_ in range(4):
            await publish(app, counts, round_ * 300, round_ * 300 + 300)
            server.kill()
            await publish(app, counts, 10_000 + round_ * 100, 10_000 + round_ * 100 + 100)
            await server.start()
        await has_effects(app, 1_600)
        await app.running["counts"].relay.flush()

        found = await effects(app)
        assert len(found) == 1_600
        for key in range(50):
            numbers = [number for name, number in found if name == f"k{key}"]
            order = [number for round_ in range(4) for base, size in ((round_ * 300, 300), (10_000 + round_ * 100, 100))
                     for number in range(base, base + size) if number % 50 == key]  # fmt: skip
            assert numbers == order


async def test_tap_shows_single_events_and_subjects_name_the_lane(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server, running(server, tmp_path / "app", Batches()) as (app, counts):
        subjects: list[str] = []
        connection = await nats.connect(address(server))

        async def heard(message: Any) -> None:
            subjects.append(message.subject)

        await connection.subscribe(f"{TOPIC}.>", cb=heard)
        await connection.flush()
        await publish(app, counts, 0, 300)
        await has_effects(app, 300)
        seen: list[Seen] = []
        broker: Any = app.broker
        tap = broker.tap(seen.append)
        pending = await tap.add(TOPIC, since=0)
        await until(lambda: len(seen) == pending, "all messages were seen")
        single = [each for message in seen for each in singly(message)]
        await tap.aclose()
        await connection.close()

        assert len(single) == 300
        assert sorted(Counted.from_binary(each.data).number for each in single) == list(range(300))
        assert {each.sequence for each in single} == set(range(1, pending + 1))
        assert single[-1].pending == 0
        assert {f"{TOPIC}.{lane_of(read(each.headers).key)}.batch" for each in single} >= {name for name in subjects if "batch" in name}
        assert any(name.endswith(".batch") for name in subjects)
