"""A service whose last run left a long outbox, and whose broker dies while it starts: it works at once, and all leaves in order."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from linkspan import App, Service
from linkspan.brokers import broker_for
from linkspan.cli.tap import tap_of
from linkspan.runtime import system
from linkspan.stores.sqlite import SqliteStore
from linkspan.testing.store_probe import Settled
from tests.integration.nats_runner import NatsRunner
from tests.unit.app_shop import Placed, placed_message

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan.ports import Broker, Outgoing, Seen

OLD, NEW, KEYS = 20_000, 40, 40
TOPIC = "app.shop.v1.events"


def row(number: int) -> Outgoing:
    return placed_message(f"old-{number}", f"k{number % KEYS}", str(number))


async def leave_behind(folder: Path) -> None:
    """Commit what a run commits that is killed before any of it has left."""
    store, done = SqliteStore(folder / "orders.db", name="orders", runtime=system()), Settled()
    await store.open()
    await done.submit(store, *(done.unit(messages=[row(at + each) for each in range(500)]) for at in range(0, OLD, 500)))
    await store.aclose()


async def logged(broker: Broker, wanted: int) -> dict[str, list[int]]:
    """Return the numbers that a broker has stored, by key, in its order."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    count = 0

    def receive(seen: Seen) -> None:
        nonlocal count
        count += 1
        placed = Placed.from_binary(seen.data)
        found[placed.order].append(int(placed.note))

    tap = tap_of(broker, receive)
    await tap.add(TOPIC, since=0)
    while count < wanted:  # noqa: ASYNC110 - a plain callback counts
        await asyncio.sleep(0.01)
    await tap.aclose()
    return found


async def test_service_starts_with_a_long_outbox_and_a_dead_broker_and_all_leaves_in_order(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path, sync="2m") as server:
        begun = asyncio.Event()

        def reached(point: str) -> None:
            if point == "relay.batch.before" and not begun.is_set():
                begun.set()
                server.kill()

        url, login = server.url, {"user": server.user, "password": server.password}
        orders = Service("orders", owns=[Placed])
        await leave_behind(tmp_path)
        broker = broker_for(url, system(), **login)
        await broker.open()
        runtime = replace(system(), reached=reached)
        async with asyncio.timeout(60), App(orders, broker=broker, data=tmp_path, http="127.0.0.1:0", runtime=runtime) as app:
            await begun.wait()
            assert app.started.is_set()
            assert app.running["orders"].relay.full

            await server.start()
            await app.running["orders"].relay.room()
            for number in range(OLD, OLD + NEW):
                async with app.transaction(orders) as ctx:
                    await ctx.publish(Placed(order=f"k{number % KEYS}", note=str(number)))
            assert await logged(broker, OLD + NEW) == {f"k{key}": [*range(key, OLD + NEW, KEYS)] for key in range(KEYS)}
        await broker.aclose()
