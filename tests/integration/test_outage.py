"""What handlers depend on goes away for a while: the breaker on a real outage, behind a real nats-server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.brokers import broker_for
from linkspan.runtime import system
from tests.integration.nats_runner import NatsRunner
from tests.integration.outage import outage_costs_no_message

if TYPE_CHECKING:
    from pathlib import Path


async def test_outage_of_a_dependency_costs_no_message(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server:
        broker = broker_for(server.url, system(), user=server.user, password=server.password)
        await broker.open()
        await outage_costs_no_message(broker, tmp_path / "app")
        await broker.aclose()
