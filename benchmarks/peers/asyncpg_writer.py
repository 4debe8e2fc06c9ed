"""A business row and an outbox row in one transaction, written by hand on asyncpg: a pool, prepared statements."""

from __future__ import annotations

import os
import time
import uuid
import zlib
from typing import TYPE_CHECKING, Any

from benchmarks import payload, worker
from benchmarks.ours.orders_v1 import OrderPlaced  # the same encoder on both sides: what is compared is the rest
from benchmarks.peers.asyncpg_tables import ORDER, OUTBOX, open_pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import asyncpg

ROWS = payload.events()
TOPIC, NAME = "bench.orders.v1.events", "OrderPlaced"
HEAD = "ce-specversion: 1.0\r\nce-type: bench.orders.v1.OrderPlaced\r\nce-source: /orders\r\nce-datacontenttype: application/protobuf\r\n"


def write_one(pool: asyncpg.Pool[Any]) -> Callable[[int], Awaitable[Any]]:
    """Give the operation that is measured: an order, its event as a numbered outbox row, commit."""

    async def operation(number: int) -> None:
        event = OrderPlaced(**ROWS[number % payload.VARIETY])
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(ORDER, event.order_id, event.customer_id, event.cents)
            await connection.fetchrow(OUTBOX, *outbox_row(event))

    return operation


def outbox_row(event: OrderPlaced) -> tuple[Any, ...]:
    """Make the columns of an event: CloudEvents headers with an id, time and trace, and the payload."""
    key, now = event.order_id, time.time()
    identity = uuid.uuid4()
    id_, trace = str(identity), f"00-{identity.hex}-{identity.hex[:16]}-01"
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    headers = f"{HEAD}ce-id: {id_}\r\nce-time: {moment}\r\nce-partitionkey: {key}\r\ntraceparent: {trace}\r\n".encode("ascii")
    return (zlib.crc32(key.encode()) % 64, TOPIC, NAME, id_, key, now, headers, event.to_binary())


class Writer:
    """One pool of connections."""

    def __init__(self) -> None:
        self._pool: asyncpg.Pool[Any] | None = None

    async def start(self, dsn: str, schema: str, connections: int) -> None:
        """Make the tables and connect."""
        self._pool = await open_pool(dsn, schema, connections)

    async def write(self, operations: int, callers: int, pids: dict[str, int]) -> dict[str, Any]:
        """Measure `operations` transactions with `callers` in flight."""
        assert self._pool
        return await worker.timed_loop(callers, operations, write_one(self._pool), {"writer": os.getpid()} | pids)

    async def stop(self, total: int) -> None:
        """Check that everything was written once, and close."""
        assert self._pool
        found = await self._pool.fetchrow("select (select count(*) from orders), (select count(*) from outbox)")
        await self._pool.close()
        self._pool = None
        if found is None or tuple(found) != (total, total):
            message = f"{found} orders and outbox rows for {total} operations"
            raise RuntimeError(message)


if __name__ == "__main__":
    writer = Writer()
    worker.main({name: getattr(writer, name) for name in ("start", "write", "stop")})
