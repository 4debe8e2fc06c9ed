"""What an earlier run left in the outbox: a service is up at once, and it leaves in order, before what is new, a page at a time."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from typing import TYPE_CHECKING

import pytest

from linkspan.brokers.memory import Faults, MemoryBroker, MemoryLog
from linkspan.errors import Code, Error
from linkspan.outgoing.outbox import AGAIN, HIGH_WATER, PAGE, PAUSES, Relay
from linkspan.ports import Outgoing
from linkspan.stores.sqlite import SqliteStore
from linkspan.testing.clock import fake_runtime
from linkspan.testing.store_probe import Settled
from tests.unit.durable import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection
    from pathlib import Path

    from linkspan.testing.clock import FakeClock

TOPIC = "shop.events"
KEYS = 7
OLD = HIGH_WATER + 3 * PAGE
"""A few pages more than are loaded before the service starts."""


class Reads:
    """A store that can stop before an answer, or fail: what a relay sees of a slow disk."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.answers = asyncio.Event()
        self.answers.set()
        self.read = 0
        self.failing = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def unsent(self, after: int, limit: int, lanes: Collection[int] | None = None) -> list[Outgoing]:
        if self.failing:
            self.failing -= 1
            raise Error(Code.UNAVAILABLE, "The disk is away.")
        page = await self._store.unsent(after, limit, lanes)
        self.read += 1
        await self.answers.wait()
        return page


@dataclass
class Backlog:
    """One relay, its store and its broker. Each row has a number; the numbers of a key grow with the commits."""

    store: SqliteStore
    reads: Reads
    broker: MemoryBroker
    log: MemoryLog
    faults: Faults
    clock: FakeClock
    numbers: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.relay = self.new_relay()

    def new_relay(self) -> Relay:
        return Relay(self.reads, self.broker, self.broker.runtime)  # type: ignore[arg-type]  # a store but for one method

    async def commit(self, rows: int, *, take: bool = True) -> None:
        """Commit rows in units of at most 500, and hand them over unless they are an earlier run's."""
        while rows:
            messages = [self._message(number) for number in islice(self.numbers, min(rows, 500))]
            done = Settled()
            await done.submit(self.store, done.unit(messages=messages))
            if take:
                self.relay.take(messages)
            rows -= len(messages)

    @staticmethod
    def _message(number: int) -> Outgoing:
        key = f"k{number % KEYS}" if number % (KEYS + 1) else ""
        return Outgoing(TOPIC, "Placed", number % KEYS, f"m{number}", key, b"", b"%d" % number)

    def published(self) -> dict[int, list[int]]:
        """Return the numbers that the broker has, by key, in its order."""
        found: dict[int, list[int]] = {key: [] for key in range(KEYS)}
        for record in self.log.topics[TOPIC].records:
            if int(record.data) % (KEYS + 1):
                found[int(record.data) % KEYS].append(int(record.data))
        return found

    async def leaves(self, rows: int) -> None:
        """Wait until that many rows have left, and check that each has, once, in the order of its key's commits."""

        async def gone() -> bool:
            await self.clock.advance(PAUSES[-1])
            return len(self.log.topics[TOPIC].records) >= rows

        await until(gone, f"{rows} have left")
        assert sorted(int(record.data) for record in self.log.topics[TOPIC].records) == [*range(rows)]
        assert self.published() == {key: sorted(numbers) for key, numbers in self.published().items()}

    async def flushed(self) -> int:
        """Flush, and return how many rows had left at its end."""
        sent: list[int] = []
        flush = asyncio.create_task(self.relay.flush())
        flush.add_done_callback(lambda _: sent.append(len(self.log.topics[TOPIC].records)))

        async def done() -> bool:
            await self.clock.advance(1.0)
            return bool(sent)

        await until(done, "the flush ends")
        return sent[0]


@asynccontextmanager
async def backlog(folder: Path, old: int = OLD) -> AsyncGenerator[Backlog]:
    """Leave rows in a store, as a run that was killed does, and make the relay of the next one."""
    runtime, clock = fake_runtime()
    log, faults = MemoryLog(), Faults()
    broker, store = MemoryBroker(runtime=runtime, log=log, faults=faults), SqliteStore(folder / "shop.db", name="shop", runtime=runtime)
    await broker.open()
    await broker.declare([TOPIC], [])
    await store.open()
    found = Backlog(store, Reads(store), broker, log, faults, clock)
    await found.commit(old, take=False)
    try:
        yield found
    finally:
        await found.relay.aclose()
        await store.aclose()
        await broker.aclose()


async def test_a_service_starts_while_the_broker_takes_nothing_of_a_long_backlog(tmp_path: Path) -> None:
    async with backlog(tmp_path) as run:
        run.log.stop()
        await run.relay.start()

        assert run.relay.full
        run.log.start()
        await run.leaves(OLD)
        await until(lambda: not run.relay.full, "handlers that publish go on")


async def test_what_is_committed_meanwhile_leaves_behind_the_old_rows_of_its_key(tmp_path: Path) -> None:
    async with backlog(tmp_path) as run:
        run.log.stop()
        await run.relay.start()
        await run.commit(600)
        run.log.start()
        for _ in range(10):
            await run.commit(100)

        await run.leaves(OLD + 1_600)


async def test_memory_holds_a_part_of_the_backlog_and_nothing_of_what_is_new(tmp_path: Path) -> None:
    async with backlog(tmp_path) as run:
        run.log.stop()
        await run.relay.start()
        await run.commit(2 * HIGH_WATER)

        assert run.relay.waiting == HIGH_WATER
        assert len(run.relay._late or ()) <= 2 * PAGE
        run.log.start()
        most = 0
        while run.relay.waiting:
            most = max(most, run.relay.waiting)
            await run.clock.advance(PAUSES[-1])
        assert most <= HIGH_WATER
        await run.leaves(OLD + 2 * HIGH_WATER)


@pytest.mark.parametrize("rows", [1, PAGE + 200])
async def test_rows_that_are_committed_during_the_last_look_leave_too(tmp_path: Path, rows: int) -> None:
    async with backlog(tmp_path, old=HIGH_WATER) as run:
        await run.relay.start()
        run.reads.answers.clear()
        read = run.reads.read
        await until(lambda: run.reads.read > read, "the last page, an empty one, is on its way")
        await run.commit(rows)
        run.reads.answers.set()

        await run.leaves(HIGH_WATER + rows)


async def test_handlers_that_publish_are_held_back_until_the_backlog_is_short(tmp_path: Path) -> None:
    async with backlog(tmp_path) as run:
        await run.relay.start()
        await asyncio.wait_for(run.relay.room(), 20)

        assert len(run.log.topics[TOPIC].records) >= OLD - HIGH_WATER // 2


async def test_a_flush_sends_what_this_run_committed_and_not_all_that_an_earlier_one_left(tmp_path: Path) -> None:
    async with backlog(tmp_path) as run:
        run.faults.delay = 1.0  # slower than the store, so that there is always a page to load
        await run.relay.start()
        assert await run.flushed() == HIGH_WATER

        run.faults.delay = 0.0  # faster: memory is empty now and then, and the store is not
        await run.commit(10)
        assert await run.flushed() == OLD + 10


async def test_a_relay_that_ended_while_it_loaded_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    async with backlog(tmp_path) as run:
        await run.relay.start()
        run.reads.answers.clear()
        await run.commit(100)
        await until(lambda: len(run.log.topics[TOPIC].records) == HIGH_WATER, "the first pages have left, the next is being read")
        await run.relay.aclose()
        run.reads.answers.set()
        run.relay = run.new_relay()
        await run.relay.start()
        await run.commit(100)

        await run.leaves(OLD + 200)


async def test_a_store_that_does_not_answer_is_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "linkspan.outbox")
    async with backlog(tmp_path) as run:
        await run.relay.start()
        run.reads.failing = 2
        await until(lambda: run.reads.failing == 1, "a page could not be read")
        await run.clock.advance(AGAIN)

        await run.leaves(OLD)
        assert [record.code for record in caplog.records] == ["unavailable", "unavailable"]  # type: ignore[attr-defined]  # an extra field
