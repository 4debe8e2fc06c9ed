"""A dependency that goes away for a while under load: a TCP server that is closed and opened again, and what its users' messages become."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from linkspan import App, Breaker, Context, Limits, Service
from tests.integration.nats_runner import free_port
from tests.unit.app_shop import Placed

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan.ports import Broker

EFFECTS = "create table effect (position integer primary key, key text, number text)"
KEYS, EACH = 60, 6


class Dependency:
    """Says a line to whoever connects."""

    def __init__(self) -> None:
        self.port = free_port()
        self.refused = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"charged\n")
        writer.close()

    async def ask(self) -> bytes:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            self.refused += 1
            raise
        try:
            return await reader.readline()
        finally:
            writer.close()


async def outage_costs_no_message(broker: Broker, folder: Path) -> None:
    """Half-way through, the dependency is away until the breaker has tried it in vain; no message is held, lost, doubled or overtaken."""
    dependency = Dependency()
    orders = Service("orders", owns=[Placed])
    mail = Service("mail", migrations=[EFFECTS], limits=Limits(inline=5, backoff=0.5), breaker=Breaker(failures=5, pause=0.1, longest=0.4))

    @mail.on(Placed)
    async def charge(ctx: Context, event: Placed) -> None:
        assert await dependency.ask() == b"charged\n"
        ctx.tx.record("insert into effect (key, number) values (?, ?)", event.order, event.note)

    await dependency.open()
    async with App(orders, mail, broker=broker, data=folder, http="127.0.0.1:0") as app:
        (consumer,) = app.running["mail"].consumers
        store: Any = app.running["mail"].store
        async with asyncio.timeout(90):
            await publish(app, orders, range(EACH // 2))
            while consumer.counts.handled < KEYS:  # noqa: ASYNC110 - real time is what is tried here
                await asyncio.sleep(0.01)
            await dependency.close()
            await publish(app, orders, range(EACH // 2, EACH))
            while consumer.circuit.in_vain < 4:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            assert consumer.circuit.open
            assert await store.letters() == []
            await dependency.open()
            while consumer.counts.handled < KEYS * EACH:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        found: dict[str, list[str]] = defaultdict(list)
        for key, number in await store.read("select key, number from effect order by position"):
            found[key].append(number)
        assert found == {f"order-{key}": [str(number) for number in range(EACH)] for key in range(KEYS)}
        assert not consumer.circuit.open
        assert consumer.counts.parked == consumer.counts.dead == 0
        assert dependency.refused < KEYS  # not each message of the outage was tried
    await dependency.close()


async def publish(app: App, orders: Service, numbers: range) -> None:
    """Publish one event of each key per number."""
    for number in numbers:
        async with app.transaction(orders) as ctx:
            for key in range(KEYS):
                await ctx.publish(Placed(order=f"order-{key}", note=str(number)))
