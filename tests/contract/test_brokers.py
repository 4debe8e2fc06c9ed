"""Every broker adapter runs the public suite; NATS both ways, each scenario on a server of its own that some of them kill."""

from __future__ import annotations

import json
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from nats.aio.client import Client

from linkspan.brokers import broker_for
from linkspan.brokers.memory import MemoryBroker, MemoryLog
from linkspan.brokers.nats import NatsBroker
from linkspan.testing.broker_contract import BrokerContract, Capabilities
from tests.integration.nats_cluster import NatsCluster
from tests.integration.nats_runner import NatsRunner

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from linkspan.ports import Broker, Runtime


class TestMemory(BrokerContract):
    """The broker for tests is held to the same contract, so it is a verified fake."""

    capabilities = Capabilities(drift=False)

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        self.log = MemoryLog()
        yield

    def make_broker(self, runtime: Runtime) -> Broker:
        return MemoryBroker(runtime=runtime, log=self.log)

    async def restart_server(self) -> None:
        self.log.restart()

    async def stop_server(self) -> None:
        self.log.stop()

    async def start_server(self) -> None:
        self.log.start()

    async def publish_foreign(self, topic: str, headers: bytes, data: bytes) -> None:
        self.log.append(topic, headers, data)


class TestNats(BrokerContract):
    """The hot path."""

    hot_path: ClassVar[bool] = True

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        with tempfile.TemporaryDirectory() as directory:
            self.server = NatsRunner(Path(directory))
            await self.server.start()
            try:
                yield
            finally:
                self.server.kill()

    def make_broker(self, runtime: Runtime) -> Broker:
        server = self.server
        return NatsBroker(server.url, runtime=runtime, user=server.user, password=server.password, hot_path=self.hot_path)

    async def restart_server(self) -> None:
        await self.stop_server()
        await self.start_server()

    async def stop_server(self) -> None:
        self.server.kill()

    async def start_server(self) -> None:
        await self.server.start()

    async def publish_foreign(self, topic: str, headers: bytes, data: bytes) -> None:
        fields = dict(line.split(": ", 1) for line in headers.decode().splitlines())
        client = await self._client()
        await client.jetstream().publish(f"{topic}.stray", data, headers=fields or None)
        await client.close()

    async def make_drift(self, topic: str, group: str) -> None:
        stream = topic.replace(".", "_")
        client = await self._client()
        wanted = {"name": stream, "subjects": [f"{topic}.>"], "storage": "file", "max_msgs": 7}
        await client.request(f"$JS.API.STREAM.CREATE.{stream}", json.dumps(wanted).encode(), timeout=5)
        config = {"name": group, "durable_name": group, "ack_policy": "explicit", "ack_wait": 5_000_000_000, "max_deliver": 3}
        body = json.dumps({"stream_name": stream, "action": "create", "config": config}).encode()
        await client.request(f"$JS.API.CONSUMER.CREATE.{stream}.{group}", body, timeout=5)
        await client.close()

    async def _client(self) -> Client:
        client = Client()
        await client.connect(self.server.url, user=self.server.user, password=self.server.password)
        return client


class TestNatsPublicApi(TestNats):
    """The same, with the hot path off."""

    hot_path = False


class TestNatsCluster(TestNats):
    """Three servers that are killed and come back together; streams have three replicas."""

    cluster: ClassVar[NatsCluster | None] = None

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def servers(cls, tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
        """Keep one cluster up for all scenarios, each of which has a topic of its own."""
        cluster = NatsCluster(tmp_path_factory.mktemp("cluster"))
        cls.cluster = cluster
        yield
        cluster.kill()

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        await self.all().start()
        yield

    def all(self) -> NatsCluster:
        assert self.cluster is not None
        return self.cluster

    def make_broker(self, runtime: Runtime) -> Broker:
        return broker_for(self.all().url, runtime)

    async def stop_server(self) -> None:
        self.all().kill()

    async def start_server(self) -> None:
        await self.all().start()

    async def _client(self) -> Client:
        return await self.all().connected()


def test_every_scenario_has_a_guarantee_and_few_are_skipped() -> None:
    table = {suite.__name__: suite.table() for suite in (TestMemory, TestNats, TestNatsPublicApi, TestNatsCluster)}
    skipped = {f"{suite}.{name}" for suite, rows in table.items() for name, text in rows.items() if text.startswith("not run")}

    assert min(len(rows) for rows in table.values()) >= 30
    assert all(text for rows in table.values() for text in rows.values())
    assert skipped == {"TestMemory.test_drift_is_reported"}
