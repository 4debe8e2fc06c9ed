"""The relay of a shared store: it publishes the rows of its own lanes, in the order of commits, and nothing once they may be another's."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from linkspan.brokers.memory import MemoryBroker, MemoryLog
from linkspan.outgoing.outbox import HIGH_WATER
from linkspan.outgoing.outbox_shared import LOOKS, SWEEP, SharedRelay
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


class CountedStore(SqliteStore):
    """Counts looks at the outbox."""

    looks = 0

    async def unsent(self, after: int, limit: int, lanes: Collection[int] | None = None) -> list[Outgoing]:
        self.looks += 1
        return await super().unsent(after, limit, lanes)


@dataclass
class Sharing:
    """A store with rows, a relay that has all lanes as soon as it starts, and what it published."""

    store: CountedStore
    broker: MemoryBroker
    relay: SharedRelay
    log: MemoryLog
    clock: FakeClock

    async def commit(self, *rows: tuple[int, int]) -> None:
        """Commit rows `(lane, number)`, a transaction each; a lane has one key."""
        done = Settled()
        messages = [Outgoing(TOPIC, "Placed", lane, f"{lane}-{number}", f"k{lane}", b"", b"%d" % number) for lane, number in rows]
        await done.submit(self.store, *(done.unit(messages=[message]) for message in messages))
        self.relay.take(messages)

    async def refused(self, number: int) -> None:
        """Commit a row that the broker will not have, and see it taken."""
        waiting, done = self.relay.waiting, Settled()
        message = Outgoing(TOPIC, "Placed", 9, f"large-{number}", f"large-{number}", b"", bytes(200))
        await done.submit(self.store, done.unit(messages=[message]))
        self.relay.take([message])
        await until(lambda: self.relay.waiting > waiting, "it is taken")

    async def emptied(self) -> bool:
        """Let time pass; tell whether all was published, and noticed."""
        await self.clock.advance(0.1)
        return not self.relay.waiting and not self.relay.full

    def published(self, lane: int) -> list[int]:
        return [int(record.data) for record in self.log.topics[TOPIC].records if record.lane == lane]


@asynccontextmanager
async def sharing(folder: Path) -> AsyncGenerator[Sharing]:
    runtime, clock = fake_runtime()
    log = MemoryLog()
    broker, store = MemoryBroker(runtime=runtime, log=log), CountedStore(folder / "shop.db", name="shop", runtime=runtime)
    await broker.open()
    await broker.declare([TOPIC], [])
    await store.open()
    relay = SharedRelay(store, broker, runtime, "one")
    try:
        yield Sharing(store, broker, relay, log, clock)
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


async def test_what_is_committed_in_a_pause_is_read_once_as_it_ends(tmp_path: Path) -> None:
    async with sharing(tmp_path) as shared:
        await shared.relay.start()
        shared.log.stop()
        await shared.commit((1, 0))
        await until(lambda: shared.relay.waiting == 1, "the row is taken, and the broker is away")
        await quiet()
        looks = shared.store.looks
        for number in range(1, 40):
            await shared.commit((1, number))
        await quiet()
        assert shared.store.looks == looks

        shared.log.start()
        await shared.clock.advance(0.1)
        await until(lambda: shared.published(1) == [*range(40)], "all have left, in order")
        assert shared.store.looks == looks + 1


async def test_a_silent_broker_is_not_answered_by_a_look_at_each_commit(tmp_path: Path) -> None:
    async with sharing(tmp_path) as shared:
        await shared.relay.start()
        shared.broker.faults.delay = 0.5  # of a clock that stands still
        for number in range(3 * LOOKS):
            looks = shared.store.looks
            await shared.commit((number % 3, number))
            if number < LOOKS - 2:  # less the looks as it started and for its lanes, which may count
                await until(lambda looks=looks: shared.store.looks > looks, "it is read")  # type: ignore[misc]
        await quiet()
        before = shared.store.looks
        assert before <= LOOKS + 2  # one as it started, and one for its lanes

        shared.broker.faults.delay = 0.0
        await shared.clock.advance(0.5)
        await until(lambda: sum(len(shared.published(lane)) for lane in range(3)) == 3 * LOOKS, "all have left")
        assert [shared.published(lane) for lane in range(3)] == [list(range(lane, 3 * LOOKS, 3)) for lane in range(3)]


async def test_a_message_that_the_broker_refuses_is_an_answer(tmp_path: Path) -> None:
    async with sharing(tmp_path) as shared:
        await shared.relay.start()
        shared.log.max_payload = 100
        for number in range(LOOKS + 5):
            await shared.refused(number)
        await shared.commit((1, 0))

        await until(lambda: shared.published(1) == [0], "the others go on")


async def test_a_backlog_that_grows_while_the_broker_is_away_holds_publishers_back(tmp_path: Path) -> None:
    async with sharing(tmp_path) as shared:
        await shared.relay.start()
        shared.log.stop()
        number = 0
        while not shared.relay.full:
            assert number < 2 * HIGH_WATER, "it grows without a bound"
            await shared.commit(*((each % 40, each) for each in range(number, number + 400)))
            number += 400
            await shared.clock.advance(SWEEP)
            await quiet()
        assert number >= HIGH_WATER

        shared.log.start()
        await until(shared.emptied, "all have left, and there is room")
        assert not shared.relay.full
