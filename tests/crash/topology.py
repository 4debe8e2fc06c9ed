"""Where a crash run lives: a store and a broker that outlive its processes, and whose servers are killed on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import nats
import psycopg
import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from nats.js.errors import APIError

from linkspan.brokers.embedded import embedded_nats
from linkspan.brokers.kafka_admin import group_of
from linkspan.brokers.nats_admin import consumer_of, stream_of
from linkspan.brokers.watchdog import State
from tests.integration.nats_cluster import NatsCluster
from tests.integration.nats_runner import NatsRunner
from tests.integration.postgres_runner import PostgresRunner
from tests.kafka.servers import KafkaCluster, needs_kafka

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence
    from pathlib import Path
    from random import Random

    from tests.crash.shared import Clusters

NOT_NOW = (sqlite3.OperationalError, psycopg.Error, nats.errors.Error, APIError, KafkaException, OSError, TimeoutError)
"""What an engine says that is not there at present."""

ASKED = 30.0
"""Seconds for what a loaded Kafka is asked to remove."""

Row = tuple[Any, ...]


class StoreServer(Protocol):
    """Where services keep their state."""

    def url(self, service: str) -> str:
        """Return what `open_store` opens."""

    def query(self, service: str, sql: str, *args: object) -> list[Row]:
        """Look into a service's database; `?` stands for an argument."""


class BrokerServer(Protocol):
    """One or more servers; any may be killed, and comes back at the same address."""

    url: str

    async def pending(self, topic: str, group: str) -> int:
        """Return how many messages a group has not settled yet; raises one of `NOT_NOW`."""

    def kill(self, source: Random) -> Sequence[str]:
        """Send SIGKILL to one that runs, at times to all, and start them again in a moment. Return which."""


class Topology:
    """A store and a broker, started in a folder."""

    def __init__(self, name: str, store: StoreServer, broker: BrokerServer) -> None:
        self.name, self.store, self.broker = name, store, broker


# --- stores ---------------------------------------------------------------------------------------


class SqliteFiles:
    """A file for each service."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def url(self, service: str) -> str:
        """Return the file's URL."""
        return f"sqlite:///{self._folder}/{service}.db"

    def query(self, service: str, sql: str, *args: object) -> list[Row]:
        """Read the file beside its owner."""
        with contextlib.closing(sqlite3.connect(f"file:{self._folder}/{service}.db?mode=ro", uri=True, timeout=5.0)) as connection:
            return connection.execute(sql, args).fetchall()


class PostgresSchemas:
    """A schema for each service, under a prefix of the run."""

    def __init__(self, server: PostgresRunner, prefix: str) -> None:
        self._server, self._prefix = server, prefix
        self._connection = psycopg.connect(server.url(), autocommit=True)

    def url(self, service: str) -> str:
        """Return the schema's URL; `{service}` stands for a service."""
        return f"{self._server.url()}?schema={self._prefix}_{service}"

    def query(self, service: str, sql: str, *args: object) -> list[Row]:
        """Look into the schema."""
        with self._connection.transaction():
            self._connection.execute(f"set local search_path = {self._prefix}_{service}")
            return self._connection.execute(sql.replace("?", "%s"), args or None).fetchall()

    def remove(self) -> None:
        """Drop the schemas."""
        for service in ("orders", "ledger"):
            self._connection.execute(f"drop schema if exists {self._prefix}_{service} cascade")
        self._connection.close()


# --- brokers --------------------------------------------------------------------------------------


class _Restarts:
    """Servers that were killed and are started again in a moment."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()

    def again(self, nodes: Sequence[Any], after: float) -> None:
        """Start them after so many seconds."""

        async def start() -> None:
            await asyncio.sleep(after)
            await asyncio.gather(*(node.start() for node in nodes))

        task = asyncio.get_running_loop().create_task(start())
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            self.tasks.discard(task)

    async def over(self) -> None:
        """Wait until all that were killed run; raises what kept one from it."""
        await asyncio.gather(*self.tasks)

    async def cancel(self) -> None:
        """Start none any more."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class NatsServers:
    """What is asked of NATS, whoever started it."""

    def __init__(self, client: nats.NATS) -> None:
        self.client = client

    async def empty(self) -> None:
        """Remove all streams."""
        stream = self.client.jetstream()
        while found := await stream.streams_info():
            for each in found:
                await stream.delete_stream(str(each.config.name))

    async def pending(self, topic: str, group: str) -> int:
        """Sum up the group's consumer, or those of its lanes."""
        found, name = 0, consumer_of(group)
        stream = self.client.jetstream()
        offset = 0
        while page := await stream.consumers_info(stream_of(topic), offset=offset):
            mine = [info for info in page if info.name == name or info.name.startswith(f"{name}=")]
            found += sum((info.num_pending or 0) + (info.num_ack_pending or 0) for info in mine)
            offset += len(page)
        return found


class EmbeddedNats(NatsServers):
    """The server that linkspan starts and watches."""

    def __init__(self, folder: Path, url: str, client: nats.NATS) -> None:
        super().__init__(client)
        self.url, self._folder = url, folder

    def kill_server(self) -> int:
        """Send SIGKILL to nats-server, which its watchdog starts again; return the process id it had."""
        pid: int = State.parse((self._folder / "run" / "state.json").read_text(encoding="utf-8")).server
        os.kill(pid, signal.SIGKILL)
        return pid

    def kill(self, source: Random) -> Sequence[str]:
        """Kill the one there is."""
        del source
        try:
            return [f"nats-server {self.kill_server()}"]
        except (OSError, ValueError):
            return []  # its watchdog is about to start it


class NatsNodes(NatsServers):
    """Nodes of a cluster."""

    def __init__(self, cluster: NatsCluster, client: nats.NATS) -> None:
        super().__init__(client)
        self.url, self.nodes, self.restarts = cluster.url, cluster.nodes, _Restarts()

    def kill(self, source: Random) -> Sequence[str]:
        """Kill one node, or one time in five all that run."""
        return _kill(self.nodes, self.restarts, source)


class KafkaNodes:
    """Brokers of Apache Kafka, each a controller too."""

    def __init__(self, cluster: KafkaCluster) -> None:
        self.url, self.nodes, self.restarts = cluster.url, cluster.servers, _Restarts()
        self._admin = AdminClient({"bootstrap.servers": cluster.addresses, "log_level": 0, "socket.timeout.ms": 5000})

    async def pending(self, topic: str, group: str) -> int:
        """Return what lies between the group's places and the ends of the partitions."""
        return await asyncio.to_thread(self._pending, topic, group)

    def _pending(self, topic: str, group: str) -> int:
        from confluent_kafka import ConsumerGroupTopicPartitions

        name = group_of(topic, group)
        places = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)], request_timeout=5.0)[name].result()
        known = {place.partition: place.offset for place in places.topic_partitions}
        described = self._admin.list_topics(topic, timeout=5.0).topics[topic].partitions
        asked = {TopicPartition(topic, each): OffsetSpec.latest() for each in described}
        ends = {place.partition: future.result().offset for place, future in self._admin.list_offsets(asked, request_timeout=5.0).items()}
        return sum(end - max(known.get(partition, 0), 0) for partition, end in ends.items())

    async def empty(self) -> None:
        """Remove all topics, and the groups with their places."""
        await asyncio.to_thread(self._empty)

    def _empty(self) -> None:
        groups = [each.group_id for each in self._admin.list_consumer_groups(request_timeout=ASKED).result().valid]
        for future in self._admin.delete_consumer_groups(groups, request_timeout=ASKED).values() if groups else ():
            future.result()
        if topics := self._topics():
            for future in self._admin.delete_topics(topics, request_timeout=ASKED).values():
                future.result()
        until = time.monotonic() + ASKED
        while self._topics():  # the broker hears of it a moment after the controller
            assert time.monotonic() < until, f"Kafka still has {self._topics()}"
            time.sleep(0.02)

    def _topics(self) -> list[str]:
        return [name for name in self._admin.list_topics(timeout=ASKED).topics if not name.startswith("__")]

    def kill(self, source: Random) -> Sequence[str]:
        """Kill one broker, or one time in five all that run."""
        return _kill(self.nodes, self.restarts, source)


def _kill(nodes: Sequence[Any], restarts: _Restarts, source: Random) -> Sequence[str]:
    """Kill one that runs or all of them, unless some are being started: then there is nothing to kill."""
    if restarts.tasks:
        return []
    chosen = nodes if source.random() < 0.2 else [source.choice(nodes)]
    for node in chosen:
        node.kill()
    restarts.again(chosen, source.uniform(0.0, 1.0))
    return [f"node {list(nodes).index(node) + 1}" for node in chosen]


# --- both -----------------------------------------------------------------------------------------


async def _ignore(_error: Exception) -> None:
    """Say nothing: servers are killed on purpose."""


async def _client(stack: AsyncExitStack, urls: str | list[str], user: str, password: str) -> nats.NATS:
    client = await nats.connect(urls, user=user, password=password, max_reconnect_attempts=-1, error_cb=_ignore)
    stack.push_async_callback(client.close)
    return client


@asynccontextmanager
async def sqlite_nats(folder: Path, name: str = "sqlite-nats") -> AsyncGenerator[Topology]:
    """SQLite, and the embedded NATS server."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(embedded_nats(folder / "nats"))
        url = server.url.replace("://", f"://{quote(server.user)}:{quote(server.password)}@")
        client = await _client(stack, server.url, server.user, server.password)
        yield Topology(name, SqliteFiles(folder), EmbeddedNats(folder / "nats", url, client))


def _postgres(stack: AsyncExitStack, folder: Path, server: PostgresRunner | None) -> PostgresSchemas:
    if server is None:
        server = PostgresRunner()
        stack.callback(server.remove)
        server.start()
    schemas = PostgresSchemas(server, "".join(letter if letter.isalnum() else "_" for letter in f"r_{folder.name.lower()}")[-40:])
    stack.callback(schemas.remove)
    return schemas


@asynccontextmanager
async def postgres_nats(
    folder: Path, *, server: PostgresRunner | None = None, clusters: Clusters[NatsCluster] | None = None
) -> AsyncGenerator[Topology]:
    """PostgreSQL, and three NATS servers of which each keeps all messages, their own or one of `clusters`."""
    async with AsyncExitStack() as stack:
        schemas = _postgres(stack, folder, server)
        (folder / "nats").mkdir(parents=True)
        cluster = await stack.enter_async_context(NatsCluster(folder / "nats") if clusters is None else clusters.one())
        client = await _client(stack, cluster.urls, NatsRunner.user, NatsRunner.password)
        broker = NatsNodes(cluster, client)
        stack.push_async_callback(broker.restarts.cancel)
        if clusters is not None and cluster in clusters.used:
            await broker.empty()
        yield Topology(f"postgres-nats{len(cluster.nodes)}", schemas, broker)


@asynccontextmanager
async def postgres_kafka(
    folder: Path, *, server: PostgresRunner | None = None, clusters: Clusters[KafkaCluster] | None = None
) -> AsyncGenerator[Topology]:
    """PostgreSQL, and Kafka brokers of which each keeps all messages: three of their own, or one of `clusters`."""
    needs_kafka()
    async with AsyncExitStack() as stack:
        schemas = _postgres(stack, folder, server)
        cluster = await stack.enter_async_context(KafkaCluster(folder / "kafka", brokers=3) if clusters is None else clusters.one())
        broker = KafkaNodes(cluster)
        stack.push_async_callback(broker.restarts.cancel)
        if clusters is not None and cluster in clusters.used:
            await broker.empty()
        yield Topology(f"postgres-kafka{len(cluster.servers)}", schemas, broker)


TOPOLOGIES = {"sqlite-nats": sqlite_nats, "postgres-nats": postgres_nats, "postgres-kafka": postgres_kafka}


@contextlib.contextmanager
def engines(wanted: Sequence[str]) -> Generator[tuple[list[str], dict[str, str], PostgresRunner | None]]:
    """Return the topologies whose engines are there, why others cannot be run, and one PostgreSQL for all of them."""
    there, missing = list[str](), dict[str, str]()
    server: PostgresRunner | None = None
    try:
        for name in wanted:
            try:
                if name.startswith("postgres") and server is None:
                    server = PostgresRunner()
                    server.start()
                if name.endswith("kafka"):
                    needs_kafka()
            except pytest.skip.Exception as reason:
                missing[name] = str(reason).removeprefix("not run: ")
            else:
                there.append(name)
        yield there, missing, server
    finally:
        if server is not None:
            server.remove()
