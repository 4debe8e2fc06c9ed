"""Linkspan as a producer: a business row and an event in one transaction, through the outbox to the broker."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from benchmarks import payload, worker
from benchmarks.ours.orders_v1 import GetOrder, Order, OrderPlaced, Orders
from linkspan import App, Batches, Context, Service
from linkspan.outgoing.outbox_shared import SharedRelay
from linkspan.runtime import system

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROWS = payload.events()
TABLES = ("create table orders (order_id text not null, customer_id text not null, cents integer not null)",)
ORDER = "insert into orders (order_id, customer_id, cents) values (?, ?, ?)"

orders = Service("orders", Orders, migrations=TABLES)


@orders.handles(Orders.get_order)
async def get_order(ctx: Context, request: GetOrder) -> Order:
    """Serve the contract; nobody asks here."""
    return Order(order_id=request.order_id, note=request.note, cents=0)


def commit_one(app: App) -> Callable[[int], Awaitable[Any]]:
    """Give the operation that is measured: record an order, publish its event, commit."""

    async def operation(number: int) -> None:
        event = OrderPlaced(**ROWS[number % payload.VARIETY])
        async with app.transaction(orders) as ctx:
            ctx.tx.record(ORDER, event.order_id, event.customer_id, event.cents)
            await ctx.publish(event)

    return operation


def commit_interactively(app: App) -> Callable[[int], Awaitable[Any]]:
    """Give the operation with the order written at once, in an interactive transaction, as one does who reads before."""

    async def operation(number: int) -> None:
        event = OrderPlaced(**ROWS[number % payload.VARIETY])
        async with app.transaction(orders) as ctx:
            await ctx.tx.execute(ORDER, event.order_id, event.customer_id, event.cents)
            await ctx.publish(event)

    return operation


class Producer:
    """One App that owns the event."""

    def __init__(self) -> None:
        self._app: App | None = None
        self._commits: list[int] = []

    def _reached(self, point: str) -> None:
        if point == "store.commit.after":
            self._commits.append(time.monotonic_ns())

    async def start(self, url: str, directory: str, *, timed: bool = False, batches: bool = False, store: str | None = None) -> None:
        """Start the App; `timed` notes when each commit ended, `batches` publishes in batches, `store` is another database than SQLite."""
        orders.batches = Batches(mixed=True) if batches else None
        runtime = system(self._reached) if timed else None
        self._app = App(orders, broker=url, http="127.0.0.1:0", data=directory, store=store, runtime=runtime)
        await self._app.start()

    async def commit(self, operations: int, callers: int) -> None:
        """Commit `operations` orders with `callers` in flight."""
        assert self._app
        await worker.closed_loop(callers, operations, commit_one(self._app))

    async def write_alone(self) -> None:
        """Let no full outbox hold the writing back: the broker stands still."""
        SharedRelay._press = _never  # type: ignore[method-assign]  # only here

    async def write(self, operations: int, callers: int, pids: dict[str, int], *, interactive: bool) -> dict[str, Any]:
        """Measure `operations` commits with `callers` in flight: the order recorded, or written at once."""
        assert self._app
        one = commit_interactively(self._app) if interactive else commit_one(self._app)
        return await worker.timed_loop(callers, operations, one, {"writer": os.getpid()} | pids)

    async def pace(self, operations: int, per_second: float) -> dict[str, Any]:
        """Commit at a steady pace; give when each order was committed, nanoseconds on the machine's monotonic clock."""
        assert self._app
        one, moments = commit_one(self._app), {}
        begin = time.monotonic()
        for number in range(operations):
            await asyncio.sleep(max(0.0, begin + number / per_second - time.monotonic()))
            before = len(self._commits)
            await one(number)
            # The first commit that ended since then: this order's, or one a moment earlier, never a later one.
            moments[ROWS[number % payload.VARIETY]["order_id"]] = self._commits[before]
        return {"moments": moments}

    async def fill(self, url: str, directory: str, store: str, operations: int, callers: int) -> None:
        """Commit without measuring, and let the outbox run empty."""
        await self.start(url, directory, store=store)
        await self.commit(operations, callers)
        await self.stop()

    async def count(self) -> dict[str, Any]:
        """Count the orders that are stored."""
        assert self._app
        async with self._app.transaction(orders) as ctx:
            return {"orders": (await ctx.tx.execute("select count(*) from orders"))[0][0]}

    async def stop(self) -> None:
        """Close the App: the outbox is flushed first."""
        assert self._app
        await self._app.aclose()
        self._app = None


async def _never(_relay: SharedRelay, *, behind: bool) -> None:
    pass


if __name__ == "__main__":
    producer = Producer()
    worker.main({name: getattr(producer, name) for name in ("start", "commit", "fill", "write_alone", "write", "pace", "count", "stop")})
