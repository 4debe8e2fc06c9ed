"""The relay of a shared store: it publishes the rows of its own lanes, in the order of commits, and nothing once they may be another's."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from linkspan.brokers.memory import MemoryBroker, MemoryLog
from linkspan.outbox_shared import SharedRelay
from linkspan.ports import Outgoing
from linkspan.stores.sqlite import SqliteStore
from linkspan.testing.clock import fake_runtime
from linkspan.testing.store_probe import Settled
from tests.unit.durable import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from linkspan.testing.clock import FakeClock

TOPIC = "shop.events"


@dataclass
class Sharing:
    """A store with rows, a relay that has all lanes as soon as it starts, and what it published."""

    store: SqliteStore
    relay: SharedRelay
    log: MemoryLog
    clock: FakeClock

    async def commit(self, *rows: tuple[int, int]) -> None:
        """Commit rows `(lane, number)`, a transaction each; a lane has one key."""
        done = Settled()
        messages = [Outgoing(TOPIC, "Placed", lane, f"{lane}-{number}", f"k{lane}", b"", b"%d" % number) for lane, number in rows]
        await done.submit(self.store, *(done.unit(messages=[message]) for message in messages))
        self.relay.take(messages)

    def published(self, lane: int) -> list[int]:
        return [int(record.data) for record in self.log.topics[TOPIC].records if record.lane == lane]


@asynccontextmanager
async def sharing(folder: Path) -> AsyncGenerator[Sharing]:
    runtime, clock = fake_runtime()
    log = MemoryLog()
    broker, store = MemoryBroker(runtime=runtime, log=log), SqliteStore(folder / "shop.db", name="shop", runtime=runtime)
    await broker.open()
    await broker.declare([TOPIC], [])
    await store.open()
    relay = SharedRelay(store, broker, runtime, "one")
    try:
        yield Sharing(store, relay, log, clock)
    finally:
        await relay.aclose()
        await store.aclose()
        await broker.aclose()


async def quiet() -> None:
    """Let the loop and the store's threads do what they would do."""
    for _ in range(20):
        await asyncio.sleep(0.002)


async def test_rows_of_a_key_leave_in_the_order_of_their_commits(tmp_path: Path) -> None:
    async with sharing(tmp_path) as shared:
        await shared.commit(*[(lane, number) for number in range(40) for lane in (1, 2)])
        await shared.relay.start()
        await until(lambda: len(shared.log.topics[TOPIC].records) >= 80, "all are published")

        assert [shared.published(1), shared.published(2)] == [[*range(40)], [*range(40)]]


async def test_rows_of_lanes_that_are_anothers_are_left_to_it(tmp_path: Path) -> None:
    async with sharing(tmp_path) as shared:
        await shared.relay.start()
        shared.relay.lose([2])
        await shared.commit((1, 0), (2, 0))
        await until(lambda: shared.published(1) == [0], "ours is published")
        await quiet()
        assert shared.published(2) == []

        await shared.relay.gain({2: ("(outbox)", 2, 0)})
        await until(lambda: shared.published(2) == [0], "it leaves when the lane is ours")


async def test_rows_that_wait_behind_one_are_forgotten_with_their_lane(tmp_path: Path) -> None:
    async with sharing(tmp_path) as shared:
        await shared.commit((1, 0), (1, 1), (2, 0), (2, 1))
        await shared.relay.start()
        await until(lambda: shared.relay.waiting == 4, "all are taken")
        shared.relay.lose([2])
        await until(lambda: shared.published(1) == [0, 1], "ours are published")
        await quiet()

        assert 1 not in shared.published(2)  # the first may have been on its way


async def test_a_relay_that_stood_still_past_its_lease_publishes_nothing(tmp_path: Path) -> None:
    async with sharing(tmp_path) as shared:
        await shared.relay.start()
        shared.relay.lanes._until = 0.0  # what a process that stood still sees before any of its timers ran
        await shared.commit((1, 0))
        await quiet()

        assert shared.published(1) == []
