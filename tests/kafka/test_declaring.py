"""Topics that are declared at once by many, in a cluster whose brokers hear of them one after the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from linkspan.brokers import broker_for
from linkspan.runtime import system
from tests.kafka.servers import KafkaCluster, needs_kafka

if TYPE_CHECKING:
    from pathlib import Path

TOPIC = "kafka.declaring.v1.events"


async def test_instances_that_start_at_once_declare_one_topic(tmp_path: Path) -> None:
    """One creates it; the others may ask a broker that has not heard of it yet."""
    needs_kafka()
    async with KafkaCluster(tmp_path / "kafka", brokers=3) as cluster:
        brokers = [broker_for(cluster.url, system()) for _ in range(8)]
        await asyncio.gather(*[broker.open() for broker in brokers])
        try:
            drifts = await asyncio.gather(*[broker.declare([TOPIC], [(TOPIC, "mail")]) for broker in brokers])
        finally:
            await asyncio.gather(*[broker.aclose() for broker in brokers])

    assert drifts == [[]] * 8
