"""Linkspan as a durable consumer: at-least-once; with inbox and a recorded effect; with a read before the write."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from benchmarks import worker
from benchmarks.ours.orders_v1 import OrderPlaced
from linkspan import App, Context, Service
from linkspan.runtime import system

if TYPE_CHECKING:
    from linkspan.ports import Runtime

TABLES = (
    "create table effect (order_id text not null, cents integer not null, note text not null)",
    "create table customer (customer_id text primary key, discount integer not null) without rowid",
)
EFFECT = "insert into effect (order_id, cents, note) values (?, ?, ?)"
DISCOUNT = "select discount from customer where customer_id = ?"


ON_POSTGRES = tuple(table.removesuffix(" without rowid") for table in TABLES)


class Commits:
    """Notes when the effect of each event was committed, by the hook that stands before and after every commit."""

    def __init__(self) -> None:
        self.handled: list[str] = []
        self.moments: dict[str, int] = {}
        self._joining: list[str] = []

    def reached(self, point: str) -> None:
        """Take what was handled before a commit begins, stamp it when the commit has ended."""
        if point == "store.commit.before":
            self._joining, self.handled = self.handled, []
        elif point == "store.commit.after":
            now = time.monotonic_ns()
            self.moments.update((order_id, now) for order_id in self._joining)
            self._joining = []

    def runtime(self) -> Runtime:
        """Give the system's runtime with this hook in it."""
        return system(self.reached)


class Consumer(worker.Counting):
    """One App that consumes one topic; `mode` is ack, inbox, reads, writes (at once) or moments (inbox, a clock on each commit)."""

    def __init__(self) -> None:
        super().__init__()
        self._app: App | None = None
        self._mail: Service | None = None
        self._mode = ""
        self._commits = Commits()

    async def declare(self, url: str, directory: str, mode: str, store: str | None = None) -> None:
        """Create the stream and the group, as a first deployment does."""
        await self.start(url, directory, mode, store)
        await self._close()

    async def start(self, url: str, directory: str, mode: str, store: str | None = None) -> None:
        """Consume; `store` is another database than SQLite."""
        self._mode = mode
        self._mail = self._service(mode, TABLES if store is None else ON_POSTGRES)
        runtime = self._commits.runtime() if mode == "moments" else None
        self._app = App(self._mail, broker=url, data=directory, store=store, runtime=runtime)
        await self._app.start()

    def _service(self, mode: str, tables: tuple[str, ...]) -> Service:
        mail = Service("mail", migrations=tables)

        @mail.on(OrderPlaced, once=mode != "ack")
        async def on_order_placed(ctx: Context, event: OrderPlaced) -> None:
            assert event.cents
            if mode == "reads":
                assert not await ctx.tx.execute(DISCOUNT, event.customer_id)
            if mode == "writes":
                await ctx.tx.execute(EFFECT, event.order_id, event.cents, event.note)
            elif mode != "ack":
                ctx.tx.record(EFFECT, event.order_id, event.cents, event.note)
            if mode == "moments":
                self._commits.handled.append(event.order_id)
            if self._tally:
                self._tally.hit()

        return mail

    async def expect(self, skip: int, measured: int, total: int, pids: dict[str, int]) -> None:
        """Count from now on; CPU of this process and of those in `pids`."""
        self._commits.moments.clear()
        await super().expect(skip, measured, total, pids)

    async def moments(self, total: int) -> dict[str, Any]:
        """Give when each of `total` effects since `expect` was committed, nanoseconds on the machine's monotonic clock."""
        async with asyncio.timeout(5):
            while len(self._commits.moments) < total:  # noqa: ASYNC110 - the last commit ends in another thread
                await asyncio.sleep(0.001)
        return {"moments": self._commits.moments}

    async def stop(self, total: int, effects: int | None = None) -> None:
        """Close, and check that `total` messages were handled since `expect` and exactly `effects` (or `total`) rows stored."""
        assert self._app
        assert self._mail
        assert self._tally
        self._tally.check(total)
        expected = 0 if self._mode == "ack" else total if effects is None else effects
        async with self._app.transaction(self._mail) as ctx:
            found = (await ctx.tx.execute("select count(*) from effect"))[0][0]
        await self._close()
        if found != expected:
            message = f"{found} effects for {expected} events"
            raise RuntimeError(message)

    async def _close(self) -> None:
        assert self._app
        await self._app.aclose()
        self._app, self._tally = None, None


if __name__ == "__main__":
    consumer = Consumer()
    worker.main({name: getattr(consumer, name) for name in ("declare", "start", "expect", "result", "moments", "stop")})
