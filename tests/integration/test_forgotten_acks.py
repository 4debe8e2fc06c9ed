"""A broker that is killed right after acknowledgements forgets many of them: nothing has its effect twice. Real nats-server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from linkspan import App, Context, Service
from linkspan.brokers import broker_for
from linkspan.runtime import system
from tests.integration.nats_runner import NatsRunner
from tests.unit.app_shop import Placed

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 600

pytestmark = pytest.mark.timeout(120)


async def test_hundreds_come_again_and_none_has_its_effect_twice(tmp_path: Path) -> None:
    orders = Service("orders", owns=[Placed])
    mail = Service("mail", migrations=["create table handled (key text, note text)"])

    @mail.on(Placed)
    async def handle(ctx: Context, event: Placed) -> None:
        ctx.tx.record("insert into handled values (?, ?)", event.order, event.note)

    async with NatsRunner(tmp_path) as server:
        broker = broker_for(server.url, system(), user=server.user, password=server.password)
        await broker.open()
        async with App(orders, mail, broker=broker, data=tmp_path, http="127.0.0.1:0") as app:
            (consumer,) = app.running["mail"].consumers
            store = app.running["mail"].store
            assert store is not None
            async with app.transaction(orders) as ctx:
                for number in range(COUNT):
                    await ctx.publish(Placed(order=f"k{number % 50}", note=str(number)))
            async with asyncio.timeout(60):
                while consumer.counts.handled < COUNT or consumer.in_hand:  # noqa: ASYNC110 - the last acknowledgement is waited for
                    await asyncio.sleep(0)
                server.kill()  # right after the last acknowledgement has left
                await server.start()
                while consumer.counts.duplicates < 100:  # noqa: ASYNC110 - another process decides how many
                    await asyncio.sleep(0.05)
                async with app.transaction(orders) as ctx:
                    await ctx.publish(Placed(order="k0", note="last"))
                while consumer.counts.handled < COUNT + 1:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.05)
            rows = await store.read("select key, note from handled order by rowid")

            assert len(rows) == len(set(rows)) == COUNT + 1
            for key in range(50):
                numbers = [note for each, note in rows if each == f"k{key}"]
                assert numbers == [str(number) for number in range(key, COUNT, 50)] + (["last"] if key == 0 else [])
        await broker.aclose()
