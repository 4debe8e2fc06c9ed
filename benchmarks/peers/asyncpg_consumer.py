"""A durable consumer written by hand on nats-py and asyncpg: inbox id and effect in one transaction, then the ack, in order per key.

`mode` is `each`, a transaction a message on as many connections as there are workers, or `fetched`, one transaction for each fetch.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import nats
from nats.errors import TimeoutError as NothingCame
from nats.js.api import ConsumerConfig, StreamConfig

from benchmarks import payload, worker
from benchmarks.ours.orders_v1 import OrderPlaced  # the same encoder on both sides: what is compared is the rest
from benchmarks.peers.asyncpg_tables import CLAIM, EFFECT, EFFECTS_OF_MANY, open_pool

if TYPE_CHECKING:
    import asyncpg
    from nats.aio.msg import Msg

ROWS = payload.events()
WORKERS = 16
FETCH = 256


class Consumer(worker.Counting):
    """One connection to the broker, a pool to the database, and a queue for each worker: a key always has the same one."""

    def __init__(self) -> None:
        super().__init__()
        self._pool: asyncpg.Pool[Any] | None = None
        self._nats: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._queues: list[asyncio.Queue[tuple[Msg, OrderPlaced]]] = []

    async def fill(self, url: str, topic: str, operations: int, callers: int) -> None:
        """Publish without measuring: the stream, and events with an id each."""
        connection = await nats.connect(url)
        stream = connection.jetstream()
        await stream.add_stream(StreamConfig(name=topic, subjects=[topic]))

        async def one(number: int) -> None:
            event = OrderPlaced(**ROWS[number % payload.VARIETY])
            await stream.publish(topic, event.to_binary(), headers={"Nats-Msg-Id": f"event-{number:08x}"}, timeout=30.0)

        await worker.closed_loop(callers, operations, one)
        await connection.close()

    async def start(self, url: str, topic: str, dsn: str, schema: str, mode: str) -> None:
        """Consume `topic`."""
        self._pool = await open_pool(dsn, schema, WORKERS)
        self._nats = await nats.connect(url)
        config = ConsumerConfig(max_ack_pending=10_000)
        fetching = await self._nats.jetstream().pull_subscribe(topic, durable="bench", stream=topic, config=config)
        self._queues = [asyncio.Queue(FETCH // WORKERS) for _ in range(WORKERS)]
        several = [self._work(queue) for queue in self._queues] if mode == "each" else []
        self._tasks = [asyncio.create_task(each) for each in (self._fetch(fetching, mode), *several)]

    async def _fetch(self, fetching: Any, mode: str) -> None:
        while True:
            with suppress(NothingCame):
                messages = await fetching.fetch(FETCH, timeout=1)
                if mode == "fetched":
                    await self._together(messages)
                    continue
                for message in messages:
                    event = OrderPlaced.from_binary(message.data)
                    await self._queues[zlib.crc32(event.order_id.encode()) % WORKERS].put((message, event))

    async def _work(self, queue: asyncio.Queue[tuple[Msg, OrderPlaced]]) -> None:
        assert self._pool
        while True:
            message, event = await queue.get()
            async with self._pool.acquire() as connection, connection.transaction():
                if await connection.fetchval(CLAIM, "/orders", message.headers["Nats-Msg-Id"], time.time()):
                    await connection.execute(EFFECT, event.order_id, event.cents, event.note)
            await message.ack()
            self._hit()

    async def _together(self, messages: list[Msg]) -> None:
        """Write a whole fetch in one statement, which removes duplicates, then acknowledge each message."""
        assert self._pool
        events = [OrderPlaced.from_binary(message.data) for message in messages]
        columns = [[getattr(event, name) for event in events] for name in ("order_id", "cents", "note")]
        ids = [message.headers["Nats-Msg-Id"] for message in messages]
        await self._pool.execute(EFFECTS_OF_MANY, "/orders", ids, time.time(), *columns)
        for message in messages:
            await message.ack()
            self._hit()

    def _hit(self) -> None:
        if self._tally:
            self._tally.hit()

    async def stop(self, total: int) -> None:
        """Close, and check that `total` messages were handled since `expect` and exactly that many effects stored."""
        assert self._tally
        assert self._pool
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        found = await self._pool.fetchval("select count(*) from effect")
        await self._pool.close()
        await self._nats.close()
        self._tally.check(total)
        if found != total:
            message = f"{found} effects for {total} events"
            raise RuntimeError(message)


if __name__ == "__main__":
    consumer = Consumer()
    worker.main({name: getattr(consumer, name) for name in ("fill", "start", "expect", "result", "stop")})
