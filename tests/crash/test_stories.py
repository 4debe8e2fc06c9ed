"""What goes wrong in real life, under load: brokers and services killed, databases away, full or locked, duplicates, poison."""

from __future__ import annotations

import asyncio
import random
import resource
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from linkspan.ports import LetterState
from linkspan.runtime import system
from linkspan.stores import open_store
from tests.crash.children import Lane
from tests.crash.crash_app import GROUPS
from tests.crash.running import WORKLOAD, Run

if TYPE_CHECKING:
    from pathlib import Path

EVENTS = "crash.orders.v1.events"

LOAD = (
    *(Lane(f"call{number}", "call", count=40, pause=0.02) for number in range(4)),
    *(Lane(f"checked{number}", "checked", "checked", count=40, pause=0.02) for number in range(2)),
    *(Lane(f"send{number}", "send", count=40, pause=0.02) for number in range(3)),
    Lane("slow", "call", "slow", count=30, pause=0.02),
    Lane("parked", "send", "parked", count=3),
    Lane("flaky", "send", "flaky", count=10),
)
"""About two seconds of work when nothing is in its way."""

pytestmark = pytest.mark.timeout(120)


def log(run: Run, name: str) -> str:
    return (run.folder / f"{name}.log").read_text(encoding="utf-8")


async def finished(run: Run) -> None:
    """Let it drain, then let the broker forget what it forgets in a crash, drain again, and check."""
    await run.finish()
    run.kill_server()
    await asyncio.sleep(0.3)
    run.outcome.violations.clear()
    await run.finish()

    assert run.outcome.violations == []
    assert run.outcome.sums["acknowledged"] > 0


async def discard_dead(run: Run, name: str) -> None:
    """End dead letters beside the running service, as the command line does."""
    store = open_store(f"sqlite:///{run.folder}/{name}.db", name=name, runtime=system(), exclusive=False)
    await store.open()
    try:
        for letter in await store.letters(states=[LetterState.DEAD]):
            assert await store.discard(letter.position, who="test", why="foreign", at=0.0)
    finally:
        await store.aclose()


async def test_broker_killed_under_load(tmp_path: Path) -> None:
    run = Run(tmp_path, LOAD)
    async with run.started():
        killed = set[int]()
        for _ in range(3):
            await asyncio.sleep(0.7)
            killed.add(run.kill_server())
        await finished(run)

    assert len(killed) == 3
    assert run.outcome.deaths == []
    assert run.outcome.sums["acknowledged"] == sum(lane.count for lane in LOAD)


async def test_consumer_killed_five_times_under_load(tmp_path: Path) -> None:
    run, source = Run(tmp_path, LOAD), random.Random(5)
    async with run.started():
        for _ in range(5):
            await asyncio.sleep(source.uniform(0.1, 0.7))
            run.kill("ledger")
        await finished(run)

    assert len(run.outcome.deaths) == 5


async def test_all_processes_killed_at_once(tmp_path: Path) -> None:
    run = Run(tmp_path, LOAD)
    async with run.started():
        for _ in range(2):
            await asyncio.sleep(1.0)
            run.kill_server()
            for name in ("orders", "ledger"):
                run.kill(name)
        await finished(run)

    assert len(run.outcome.deaths) == 4


async def test_database_locked_for_a_while(tmp_path: Path) -> None:
    """Half a second is waited for; seven are longer than the store waits, so that what was under way fails and is repeated."""
    run = Run(tmp_path, LOAD)
    async with run.started():
        for seconds in (0.5, 7.0):
            await asyncio.sleep(0.5)
            with closing(sqlite3.connect(tmp_path / "ledger.db", timeout=5.0, isolation_level=None)) as other:
                other.execute("begin immediate")
                await asyncio.sleep(seconds)
                other.execute("rollback")
        await finished(run)

    assert run.outcome.deaths == []
    assert run.outcome.sums["acknowledged"] == sum(lane.count for lane in LOAD)


async def test_no_byte_can_be_written_for_a_while(tmp_path: Path) -> None:
    """The kernel refuses every write of the consumer's files beyond a size that they have reached already."""
    run = Run(tmp_path, LOAD)
    async with run.started():
        await run.until(lambda: run.started_once("ledger") and bool(run.effects("react", "ledger")))
        assert (tmp_path / "ledger.db-wal").stat().st_size > 90_000
        pid = run.pid("ledger")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (90_000, resource.RLIM_INFINITY))
        await asyncio.sleep(1.5)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await finished(run)

    assert run.outcome.deaths == []
    assert run.outcome.sums["acknowledged"] == sum(lane.count for lane in LOAD)


async def test_disk_full_until_a_restart_finds_a_larger_one(tmp_path: Path) -> None:
    run = Run(tmp_path, LOAD, pages=28)
    async with run.started():
        await run.until(lambda: run.driven)
        await asyncio.sleep(1.0)
        assert not await run.delivered()
        before = len(run.effects("react", "ledger"))
        run.kill("ledger")
        await finished(run)

    assert before < run.outcome.sums["react"]
    assert run.outcome.sums["acknowledged"] == sum(lane.count for lane in LOAD)


async def test_everything_published_again(tmp_path: Path) -> None:
    """Once to those who have handled it, once more to processes that were started since."""
    run = Run(tmp_path)
    async with run.started():
        await run.finish()
        for topic, _ in GROUPS[:2]:
            assert await run.publish_again(topic)
        await run.finish()
        for name in ("orders", "ledger"):
            run.kill(name)
        assert await run.publish_again(EVENTS)
        await finished(run)

    assert len(run.outcome.deaths) == 2


FOREIGN: tuple[tuple[bytes, dict[str, str]], ...] = (
    (b"no headers at all", {}),
    (b"\xff\xff\xff\xff", {"ce-id": "only-an-id"}),
    (
        b"\xff" * 64,
        {
            "ce-specversion": "1.0",
            "ce-id": "undecodable",
            "ce-source": "/x",
            "ce-type": "crash.orders.v1.OrderPlaced",
            "ce-partitionkey": "call0",
        },
    ),
    (b"", {"ce-specversion": "1.0", "ce-id": "keyless", "ce-source": "/x", "ce-type": "crash.orders.v1.OrderPlaced"}),
    (
        b"{}",
        {
            "ce-specversion": "1.0",
            "ce-id": "odd",
            "ce-source": "/x",
            "ce-type": "crash.orders.v1.OrderPlaced",
            "ce-partitionkey": "%%%",
            "content-type": "text/x",
        },
    ),
    (
        b"other",
        {"ce-specversion": "1.0", "ce-id": "foreign", "ce-source": "/x", "ce-type": "somebody.else.v1.Thing", "ce-partitionkey": "call1"},
    ),
)


async def test_unreadable_messages_stand_in_between(tmp_path: Path) -> None:
    """They become dead letters; their key waits behind them until they are discarded, other keys flow."""
    run = Run(tmp_path, LOAD)
    async with run.started():
        await run.until(lambda: run.started_once("ledger"))
        for data, headers in FOREIGN * 2:
            await run.append(EVENTS, "OrderPlaced", data, headers)
        await run.until(lambda: run.driven)
        await run.until(run.delivered)
        dead = run.letters("ledger")
        waiting = {entry.key for entry in run.effects("place", "orders")} - {entry.key for entry in run.effects("react", "ledger")}
        for name in ("orders", "ledger"):
            await discard_dead(run, name)
        await finished(run)

    assert {"undecodable", "keyless", "odd"} <= {id_ for _, id_ in dead}
    assert waiting <= {"call0"}


async def test_poisoned_key_waits_while_others_flow(tmp_path: Path) -> None:
    lanes = (*LOAD[:4], Lane("dead", "send", "dead", count=8, pause=0.01))
    run = Run(tmp_path, lanes)
    async with run.started():
        await run.until(lambda: run.driven)
        await run.until(run.delivered)
        flowed = {entry.key for entry in run.effects("react", "ledger")}
        dead, behind = run.letters("ledger"), run.letters("ledger", LetterState.WAITING)
        await finished(run)

    assert flowed == {lane.key for lane in lanes} - {"dead"}
    assert len(dead) == 1
    assert len(behind) == 7
    assert run.outcome.sums["react"] == sum(lane.count for lane in lanes)


async def test_message_that_ends_its_process(tmp_path: Path) -> None:
    """Its runs are counted before they begin, so it becomes a dead letter; the messages of other keys get through in between."""
    lanes = (*LOAD[:4], Lane("deadly", "send", "deadly", count=6, pause=0.01))
    run = Run(tmp_path, lanes)
    async with run.started():
        await run.until(lambda: run.driven)
        await run.until(lambda: run.started_once("ledger") and len(run.letters("ledger")) == 1, limit=40.0)
        deaths = len(run.outcome.deaths)
        await run.until(run.delivered)
        flowed = {entry.key for entry in run.effects("react", "ledger")}
        await finished(run)

    assert 2 <= deaths <= 6
    assert flowed == {lane.key for lane in lanes} - {"deadly"}
    assert run.outcome.sums["react"] == sum(lane.count for lane in lanes)


async def test_stop_and_start_in_order_loses_nothing(tmp_path: Path) -> None:
    """SIGTERM under load: what was started ends, the rest is there at the next start."""
    run = Run(tmp_path, LOAD)
    async with run.started():
        for name in ("ledger", "orders", "ledger"):
            await asyncio.sleep(0.6)
            assert await run.terminate(name) == 0
            run.start(name)
        await finished(run)


def test_workload_has_every_plan() -> None:
    assert {lane.plan for lane in WORKLOAD} >= {"checked", "flaky", "parked", "dead"}
