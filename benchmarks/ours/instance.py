"""Linkspan as one of several instances of a service on PostgreSQL, with a handler that waits for something."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks import worker
from benchmarks.ours.orders_v1 import OrderPlaced
from linkspan import App, Context, Limits, Service

TABLES = "create table effect (order_id text not null, at timestamptz not null default clock_timestamp())"
EFFECT = "insert into effect (order_id) values (?)"


class Instance:
    """One App."""

    def __init__(self) -> None:
        self._app: App | None = None

    async def start(self, url: str, store: str, directory: str, wait: float, concurrency: int) -> dict[str, Any]:
        """Consume; the handler waits so many seconds, and so many of them wait at the same time."""
        mail = Service("mail", store=store, migrations=[TABLES], limits=Limits(concurrency=concurrency))

        @mail.on(OrderPlaced)
        async def on_order_placed(ctx: Context, event: OrderPlaced) -> None:
            await asyncio.sleep(wait)
            ctx.tx.record(EFFECT, event.order_id)

        self._app = App(mail, broker=url, http="127.0.0.1:0", data=directory)
        await self._app.start()
        return {}

    async def stop(self) -> None:
        """Close the App."""
        assert self._app
        await self._app.aclose()
        self._app = None


if __name__ == "__main__":
    instance = Instance()
    worker.main({"start": instance.start, "stop": instance.stop})
