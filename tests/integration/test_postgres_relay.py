"""The relay on a real PostgreSQL while the broker is away: it does not read the outbox again for each commit, and loses nothing by that."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from linkspan.brokers.memory import MemoryBroker, MemoryLog
from linkspan.envelope import lane_of
from linkspan.outgoing.outbox import PAUSES
from linkspan.outgoing.outbox_shared import SharedRelay
from linkspan.ports import Outgoing
from linkspan.stores.postgres import PostgresStore
from linkspan.testing.clock import fake_runtime, settle
from linkspan.testing.store_probe import Settled
from tests.unit.durable import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection

    from linkspan.ports import Runtime
    from linkspan.testing.clock import FakeClock
    from tests.integration.postgres_runner import PostgresRunner

TOPIC = "shop.events"
KEYS = [f"k{number}" for number in range(7)]


class CountedStore(PostgresStore):
    """Counts looks at the outbox."""

    looks = 0

    async def unsent(self, after: int, limit: int, lanes: Collection[int] | None = None) -> list[Outgoing]:
        self.looks += 1
        return await super().unsent(after, limit, lanes)


class CountedBroker(MemoryBroker):
    """Counts what was tried."""

    tried = 0

    def publish(self, message: Outgoing) -> asyncio.Future[None]:
        self.tried += 1
        return super().publish(message)


class Relaying:
    """A store, its relay, and a broker that can be away; time stands still, so that a pause ends when the test says so."""

    def __init__(self, postgres: PostgresRunner, schema: str, runtime: Runtime, clock: FakeClock) -> None:
        self.clock = clock
        self.log = MemoryLog()
        self.broker = CountedBroker(runtime=runtime, log=self.log)
        self.store = CountedStore(postgres.url(schema=schema), name="shop", runtime=runtime)
        self.relay = SharedRelay(self.store, self.broker, runtime, "one")
        self._count = 0

    async def commit(self, transactions: int) -> None:
        """Commit transactions one after the other, each with a row."""
        for _ in range(transactions):
            key, done = KEYS[self._count % len(KEYS)], Settled()
            message = Outgoing(TOPIC, "Placed", lane_of(key), f"m{self._count}", key, b"", f"{key} {self._count}".encode())
            await done.submit(self.store, done.unit(messages=[message]))
            self.relay.take([message])
            self._count += 1

    async def pause_over(self, number: int) -> None:
        """Let a pause pass, and the next begin."""
        tried = self.broker.tried
        await self.clock.advance(PAUSES[min(number, len(PAUSES) - 1)])
        await until(lambda: self.broker.tried > tried, "it is tried again")
        await settle()

    def published(self, key: str) -> list[int]:
        found = [record.data.decode().split() for record in self.log.topics[TOPIC].records]
        return [int(number) for of, number in found if of == key]


@asynccontextmanager
async def relaying(postgres: PostgresRunner, schema: str) -> AsyncGenerator[Relaying]:
    found = Relaying(postgres, schema, *fake_runtime())
    await found.broker.open()
    await found.broker.declare([TOPIC], [])
    await found.store.open()
    try:
        await found.relay.start()
        await until(lambda: found.store.looks > 0, "it has its lanes")
        yield found
    finally:
        await found.relay.aclose()
        await found.store.aclose()
        await found.broker.aclose()


async def test_outbox_is_not_read_for_each_commit_while_the_broker_is_away(postgres: PostgresRunner) -> None:
    async with relaying(postgres, "relay_away") as it:
        it.log.stop()
        await it.commit(1)
        await until(lambda: it.broker.tried > 0, "the broker is found to be away")
        await settle()
        looks = it.store.looks
        await it.commit(60)
        assert it.store.looks == looks  # none during a pause
        for number in range(4):
            await it.pause_over(number)
            await it.commit(30)
            assert it.store.looks <= looks + 3 * (number + 1)  # one as a pause ends, and the sweeps

        it.log.start()
        while sum(len(it.published(key)) for key in KEYS) < 181:
            await it.clock.advance(0.1)
            await asyncio.sleep(0.002)  # for the database, whose time is real
        assert [it.published(key) for key in KEYS] == [list(range(place, 181, len(KEYS))) for place in range(len(KEYS))]
