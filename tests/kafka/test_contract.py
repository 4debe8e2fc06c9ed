"""The public broker suite on Apache Kafka: one broker, which some scenarios kill; it is shared, for it takes seconds to start."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from linkspan.brokers.kafka import KafkaBroker
from linkspan.testing.broker_contract import BrokerContract, Capabilities
from tests.kafka.servers import KafkaCluster, needs_kafka

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from linkspan.ports import Broker, Runtime


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    needs_kafka()
    TestKafka.cluster = KafkaCluster(tmp_path_factory.mktemp("kafka"))
    yield TestKafka.cluster
    TestKafka.cluster.kill()


class TestKafka(BrokerContract):
    """One broker, one replica."""

    capabilities = Capabilities(dedupe=False, replay=False, atomic=False)
    cluster: ClassVar[KafkaCluster]

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        await self.cluster.start()
        self.used: list[str] = []
        yield
        await self.cluster.start()
        await asyncio.to_thread(self._remove_topics)

    def _remove_topics(self) -> None:
        admin: Any = AdminClient({"bootstrap.servers": self.cluster.addresses, "log_level": 0})
        topics = [topic for topic in admin.list_topics(timeout=10).topics if not topic.startswith("__")]
        for future in admin.delete_topics(topics).values() if topics else ():
            future.result(timeout=10)

    def make_broker(self, runtime: Runtime) -> Broker:
        return KafkaBroker(self.cluster.url, runtime=runtime, options={"publish_timeout": 6})

    async def restart_server(self) -> None:
        await self.stop_server()
        await self.start_server()

    async def stop_server(self) -> None:
        self.cluster.kill()

    async def start_server(self) -> None:
        await self.cluster.start()

    async def publish_foreign(self, topic: str, headers: bytes, data: bytes) -> None:
        fields = [(name, value.encode()) for name, value in (line.split(": ", 1) for line in headers.decode().splitlines())]
        producer: Any = Producer({"bootstrap.servers": self.cluster.addresses, "log_level": 0})
        producer.produce(topic, data, partition=7, headers=fields)
        assert await asyncio.to_thread(producer.flush, 10) == 0

    async def make_drift(self, topic: str, group: str) -> None:
        admin: Any = AdminClient({"bootstrap.servers": self.cluster.addresses, "log_level": 0})
        new = NewTopic(topic, num_partitions=12, replication_factor=1, config={"cleanup.policy": "compact"})
        await asyncio.wrap_future(admin.create_topics([new])[topic])
        async with asyncio.timeout(10):
            while topic not in admin.list_topics(timeout=10).topics:  # noqa: ASYNC110 - who made it may be told before the broker knows
                await asyncio.sleep(0.05)


def test_what_kafka_lacks_is_few_and_named() -> None:
    skipped = {name: text for name, text in TestKafka.table().items() if text.startswith("not run")}

    assert skipped == {
        "test_batch_with_known_id_stores_nothing": "not run: lacks dedupe, atomic",
        "test_duplicate_id_is_stored_once": "not run: lacks dedupe",
        "test_lanes_go_on_in_order_after_a_restart_of_the_server": "not run: lacks replay",
        "test_restart_brings_unsettled_again_in_order": "not run: lacks replay",
    }
