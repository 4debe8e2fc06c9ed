"""A command for a service that has never started: it is kept for it, and costs nobody else anything."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from linkspan import App, Code, Contract, Error, Event, Service, field
from linkspan.brokers.memory import MemoryBroker, MemoryLog
from linkspan.outgoing.outbox import ASIDE
from linkspan.testing.clock import fake_runtime
from tests.unit.durable import Charge, Payments, until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest

    from linkspan.ports import Drift

contract = Contract("missing.shop.v1")
COMMANDS = "durable.test.v1.commands"
"""Of a service that nobody has started yet."""


class Sold(Event):
    """Something was sold."""

    order: str = field(1, key=True)


class Locked(MemoryBroker):
    """A broker on which nobody may create a topic, once it is locked."""

    locked = False

    async def declare(self, topics: Iterable[str], groups: Iterable[tuple[str, str]], *, lanes: bool = False) -> list[Drift]:
        if self.locked:
            raise Error(Code.PERMISSION_DENIED, "No.")
        return await super().declare(topics, groups, lanes=lanes)


def stored(log: MemoryLog, topic: str) -> int:
    return len(log.topics[topic].records) if topic in log.topics else 0


async def test_command_is_kept_for_a_service_that_has_never_started(tmp_path: Path) -> None:
    runtime, _ = fake_runtime()
    log = MemoryLog()
    shop, broker = Service("shop", owns=[Sold]), MemoryBroker(runtime=runtime, log=log)
    await broker.open()
    async with App(shop, broker=broker, http="127.0.0.1:0", data=tmp_path, runtime=runtime) as app:
        for number in range(40):  # as many as go in a batch, too
            async with app.transaction(shop) as ctx:
                await ctx.send(Payments.charge, Charge(order=f"{number % 4}", cents=number))
        await until(lambda: stored(log, COMMANDS) == 40, "the commands wait for their service")

    await broker.aclose()
    cents = [Charge.from_binary(record.data) for record in log.topics[COMMANDS].records]
    for order in "0123":
        assert [each.cents for each in cents if each.order == order] == list(range(int(order), 40, 4))


async def test_topic_that_may_not_be_made_keeps_its_own_messages_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runtime, clock = fake_runtime()
    log = MemoryLog()
    shop, broker = Service("shop", owns=[Sold]), Locked(runtime=runtime, log=log)
    await broker.open()
    async with App(shop, broker=broker, http="127.0.0.1:0", data=tmp_path, runtime=runtime) as app:
        broker.locked = True
        with caplog.at_level(logging.ERROR, "linkspan.outbox"):
            async with app.transaction(shop) as ctx:
                await ctx.send(Payments.charge, Charge(order="1"))
            await until(lambda: "linkspan broker apply" in caplog.text, "it is told what to do")
            for number in range(3):
                async with app.transaction(shop) as ctx:
                    await ctx.publish(Sold(order=f"{number}"))
                await until(lambda number=number: stored(log, "missing.shop.v1.events") == number + 1, "others do not wait")  # type: ignore[misc]
        assert stored(log, COMMANDS) == 0

        broker.locked = False
        await clock.advance(ASIDE)
        await until(lambda: stored(log, COMMANDS) == 1, "it leaves once its topic can be made")
    await broker.aclose()
