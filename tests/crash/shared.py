"""Clusters that many crash runs use, one after the other: starting Kafka takes longer than a run does."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from tests.integration.nats_cluster import NatsCluster
from tests.kafka.servers import KafkaCluster

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

__all__ = ["Clusters", "of_kafka", "of_nats"]

C = TypeVar("C", NatsCluster, KafkaCluster)


class Clusters(Generic[C]):
    """As many clusters as there are runs at once. Each is one run's at a time; who takes one that was `used` empties it first."""

    def __init__(self, folder: Path, make: Callable[[Path], C]) -> None:
        self._folder, self._make = folder, make
        self._all: list[C] = []
        self._idle: list[C] = []
        self.used: list[C] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for cluster in self._all:
            cluster.kill()

    @asynccontextmanager
    async def one(self) -> AsyncGenerator[C]:
        """Lend a cluster that nobody uses, started if there is none."""
        if not self._idle:
            cluster = self._make(self._folder / f"cluster{len(self._all)}")
            self._all.append(cluster)
            await cluster.start()
            self._idle.append(cluster)
        cluster = self._idle.pop()
        try:
            yield cluster
        except BaseException:
            cluster.kill()  # nobody knows what is in it
            raise
        self._idle.append(cluster)
        self.used.append(cluster)


def of_nats(folder: Path, nodes: int) -> Clusters[NatsCluster]:
    """Return clusters of nats-servers, of which each keeps all messages."""
    return Clusters(folder / "nats", lambda place: NatsCluster(place, size=nodes))


def of_kafka(folder: Path, nodes: int) -> Clusters[KafkaCluster]:
    """Return clusters of Kafka brokers, of which each keeps all messages."""
    return Clusters(folder / "kafka", lambda place: KafkaCluster(place, brokers=nodes))
