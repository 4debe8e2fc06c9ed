"""Linkspan beside a backlog: relays a full outbox, consumes into a full inbox, holds and advances keys among many dead letters."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from benchmarks import payload, worker
from benchmarks.harness import Meter
from benchmarks.ours.orders_v1 import GetOrder, Order, OrderPlaced, Orders, contract
from linkspan import App, Client, Code, Context, Error, Limits, Service
from linkspan.stores.postgres import PostgresStore
from linkspan.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linkspan.ports import Outgoing

TABLES = "create table effect (order_id text not null)"
EFFECT = "insert into effect (order_id) values (?)"
FAILS = "fails once"
PAUSE = 0.2
ROWS = payload.events()
OLDEST = "select at from linkspan_inbox order by at limit 1 offset ?"


class Backlog(worker.Counting):
    """One App: of the service that owns the event, or of one that handles it."""

    def __init__(self) -> None:
        super().__init__()
        self._app: App | None = None
        self._failed: set[str] = set()

    async def relay(self, url: str, store: str, directory: str, operations: int, pids: dict[str, int]) -> dict[str, Any]:
        """Start with what the outbox holds; measure from an eighth of `operations` until so many were stored by the broker."""
        tally = worker.Tally(operations // 8, operations - operations // 8, operations, {"relay": os.getpid()} | pids)
        for kind in (SqliteStore, PostgresStore):
            _counted(kind, tally)
        starting = asyncio.get_running_loop().create_task(self._start(_owner(store), url, directory))
        worker.kept.add(starting)  # it ends when the backlog has gone
        return await tally.result()

    async def declare(self, url: str, store: str, directory: str, service: str) -> None:
        """Make the tables, the streams and the groups."""
        await self._start(_owner(store) if service == "orders" else self._reader(store), url, directory)
        await self.stop()

    async def start(self, url: str, store: str, directory: str) -> None:
        """Consume."""
        await self._start(self._reader(store), url, directory)

    async def _start(self, service: Service, url: str, directory: str) -> None:
        self._app = App(service, broker=url, http="127.0.0.1:0", data=directory)
        await self._app.start()

    def _reader(self, store: str) -> Service:
        limits = Limits(inline=1, parked=(PAUSE, PAUSE, PAUSE), held=10_000_000)
        mail = Service("mail", store=store or None, migrations=[TABLES], limits=limits, breaker=None)

        @mail.on(OrderPlaced)
        async def on_order_placed(ctx: Context, event: OrderPlaced) -> None:
            if event.note == FAILS and event.order_id not in self._failed:
                self._failed.add(event.order_id)
                raise Error(Code.UNAVAILABLE, "What it depends on is away.")
            ctx.tx.record(EFFECT, event.order_id)
            if self._tally:
                self._tally.hit()

        return mail

    async def sweep(self, count: int, pids: dict[str, int]) -> dict[str, Any]:
        """Forget the oldest `count` inbox ids, as the clean-up does whose retention is over."""
        assert self._app
        store = self._app.running["mail"].store
        assert store is not None
        ((oldest,),) = await store.read(OLDEST, (count,))
        meter = Meter({"consumer": os.getpid()} | pids)
        meter.start()
        gone = 0
        while removed := await store.forget(oldest):
            gone += removed
        return meter.stop(gone)

    async def stop(self) -> None:
        """Close the App."""
        assert self._app
        await self._app.aclose()
        self._app = None


def _owner(store: str) -> Service:
    orders = Service("orders", Orders, store=store or None)

    @orders.handles(Orders.get_order)
    async def get_order(ctx: Context, request: GetOrder) -> Order:
        return Order(order_id=request.order_id, note=request.note, cents=0)

    return orders


def _counted(kind: type[Any], tally: worker.Tally) -> None:
    """Count what a store is told to be with the broker."""
    sent = kind.sent

    def counted(self: Any, messages: Sequence[Outgoing]) -> None:
        sent(self, messages)
        for _ in messages:
            tally.hit()

    kind.sent = counted


async def publish(url: str, operations: int, prefix: str, each: int) -> None:
    """Publish events with `each` of a key; where that is more than one, the first of each key fails once."""
    async with Client(url, name="orders", owns=[contract]) as client:

        async def key(number: int) -> None:
            for place in range(each):
                values = ROWS[(number * each + place) % payload.VARIETY] | {"order_id": f"{prefix}-{number}"}
                if each > 1 and place == 0:
                    values["note"] = FAILS
                await client.publish(OrderPlaced(**values))

        await worker.closed_loop(128, operations // each, key)


if __name__ == "__main__":
    backlog = Backlog()
    names = ("relay", "declare", "start", "expect", "result", "sweep", "stop")
    worker.main({name: getattr(backlog, name) for name in names} | {"publish": publish})
