"""Handlers that take longer than the broker's patience: their messages stay theirs. Real NATS with a short acknowledgement wait."""

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

ACK_WAIT = 0.6


@pytest.mark.parametrize("once", [True, False])
async def test_handler_of_three_times_the_wait_runs_once_and_so_does_what_waits_behind_it(tmp_path: Path, *, once: bool) -> None:
    runs: list[str] = []

    async def slow(_ctx: Context, event: Placed) -> None:
        runs.append(f"{event.order}{event.note}")
        await asyncio.sleep(3 * ACK_WAIT)

    orders, mail = Service("orders", owns=[Placed]), Service("mail")
    mail.on(Placed, once=once)(slow)
    async with NatsRunner(tmp_path) as server:
        broker = broker_for(server.url, system(), user=server.user, password=server.password, options={"ack_wait": ACK_WAIT})
        await broker.open()
        async with App(orders, mail, broker=broker, data=tmp_path, http="127.0.0.1:0") as app:
            async with app.transaction(orders) as ctx:
                for note in ("1", "2"):
                    for order in ("a", "b"):
                        await ctx.publish(Placed(order=order, note=note))
            (consumer,) = app.running["mail"].consumers
            async with asyncio.timeout(40):
                while consumer.counts.handled < 4:  # noqa: ASYNC110 - real time is what is tried here
                    await asyncio.sleep(0.05)
            await asyncio.sleep(2 * ACK_WAIT)

            assert sorted(runs) == ["a1", "a2", "b1", "b2"]
            assert consumer.counts.duplicates == 0
            assert consumer._look <= ACK_WAIT / 3
        await broker.aclose()
