"""An instance that was paused while its lane went to another: what it was doing there never comes true."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

import pytest

from linkspan import App, Context, Service
from linkspan.envelope import lane_of
from tests.unit.app_shop import Placed, placed_message

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.postgres_runner import PostgresRunner

pytestmark = pytest.mark.timeout(100)
TAKEN = "update linkspan_lane set owner = 'another', epoch = epoch + 1 where service = 'mail' and lane = ?"


async def test_handler_that_was_paused_past_its_lane_writes_nothing(tmp_path: Path, postgres: PostgresRunner) -> None:
    url = postgres.url(schema=f"fence_{secrets.token_hex(4)}")
    mail = Service("mail", store=url, migrations=["create table effect (place bigint generated always as identity, run integer)"])
    begun, taken, runs = asyncio.Event(), asyncio.Event(), 0

    @mail.on(Placed)
    async def take(ctx: Context, event: Placed) -> None:
        nonlocal runs
        runs += 1
        ctx.tx.record("insert into effect (run) values (?)", runs)
        begun.set()
        await taken.wait()

    async with asyncio.timeout(60), App(mail, broker="memory://", http="127.0.0.1:0", data=tmp_path) as app:
        store, broker, (consumer,) = app.running["mail"].store, app.broker, app.running["mail"].consumers
        assert store is not None
        assert broker is not None
        await broker.publish(placed_message("1", "k", number=1))
        await begun.wait()
        await store.apply([(TAKEN, (lane_of("k"),))])
        taken.set()
        while consumer.in_hand and not consumer.counts.handled:  # noqa: ASYNC110 - the consumer tells nobody
            await asyncio.sleep(0.01)

        assert await store.read("select run from effect where run = 1") == []
