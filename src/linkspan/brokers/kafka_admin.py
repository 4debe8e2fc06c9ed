"""Topics and groups on a Kafka cluster: declared, compared, described."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, TypeVar

from confluent_kafka import Consumer, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from linkspan.brokers.kafka_errors import code_of, meaning
from linkspan.brokers.kafka_places import places_of
from linkspan.envelope import LANES
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Drift

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Future

    from linkspan.brokers.kafka_options import KafkaOptions
    from linkspan.ports import Clock

__all__ = ["Admin", "group_of"]

T = TypeVar("T")

ASK = 8.0
"""Seconds for an answer."""
REACH = 5.0
"""Seconds for the first one."""
COPIES = 3
"""Replicas of a new topic, where there are so many brokers."""
FOR_EVER = -1
MAX_NAME = 249
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_EXISTS = 36  # TOPIC_ALREADY_EXISTS
_MEMBERS = frozenset({25, 22, 68})  # UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION, NON_EMPTY_GROUP: it is in use, so it is there
_LOOKS, _LOOK = 100, 0.05


def group_of(topic: str, group: str) -> str:
    """Return the Kafka group of a group on one topic: groups of several topics would rebalance together."""
    return f"{_plain(group, 'group')}.{_plain(topic, 'topic')}"


def _plain(name: str, what: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise SetupError(f"The {what} '{name}' cannot be named in Kafka: use letters, digits, '.', '_' and '-', at most {MAX_NAME}.")
    return name


class Admin:
    """Asks and declares on one connection."""

    def __init__(self, options: KafkaOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        try:
            self._client: Any = AdminClient(options.admin())
        except KafkaException as error:
            raise SetupError(f"The Kafka options are not understood ({error}): give what librdkafka takes.") from error
        self._nodes: list[Any] = []
        self._there: set[str] = set()  # topics that a broker has answered for: the others may hear of them later

    async def ask(self, future: Future[T], what: str) -> T:
        """Wait for an answer of librdkafka's. Raises `Error` or `SetupError`."""
        try:
            return await asyncio.wrap_future(future)
        except KafkaException as error:
            raise meaning(error, what) from error

    async def reach(self) -> None:
        """Find out how many brokers there are. Raises `Error(UNAVAILABLE)`."""
        found = await self.ask(self._client.describe_cluster(request_timeout=REACH), "The Kafka cluster")
        self._nodes = found.nodes

    async def first_broker(self) -> Any:
        """Return a broker's id, host and port. Raises `Error(UNAVAILABLE)`."""
        await self.reach()
        return self._nodes[0]

    def close(self) -> None:
        """Let the connection go; takes its time, so call it beside the loop."""
        self._client = None

    def wanted(self) -> dict[str, str]:
        """Return the settings of a topic that is declared."""
        copies = self.replicas
        return {
            "min.insync.replicas": str(max(1, min(2, copies - 1))),
            "unclean.leader.election.enable": "false",
            "cleanup.policy": "delete",
            "retention.ms": str(int(self._options.retention * 1000) or FOR_EVER),
            "retention.bytes": str(FOR_EVER),
        }

    @property
    def replicas(self) -> int:
        """Return the replicas of a topic that is declared."""
        return self._options.replicas or min(COPIES, max(1, len(self._nodes)))

    async def topic(self, name: str) -> Any:
        """Describe a topic: its partitions, their leaders and replicas. Raises `Error(NOT_FOUND)`."""
        asked = TopicCollection([_plain(name, "topic")])
        found = await self._heard(name, lambda: self.ask(self._client.describe_topics(asked, request_timeout=ASK)[name], f"Topic '{name}'"))
        self._there.add(name)
        return found

    async def _heard(self, name: str, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask about a topic, again and again where one that is there is not known yet to the broker that was asked."""
        for _ in range(_LOOKS if name in self._there else 0):
            try:
                return await ask()
            except Error as error:
                if error.code is not Code.NOT_FOUND:
                    raise
            await self._clock.sleep(_LOOK)
        return await ask()

    async def settings(self, kind: str, name: str) -> dict[str, str]:
        """Return the settings of a `topic` or a `broker`."""
        resource = ConfigResource(ResourceType[kind.upper()], name)
        found = await self._heard(
            name, lambda: self.ask(self._client.describe_configs([resource], request_timeout=ASK)[resource], f"The {kind} '{name}'")
        )
        return {setting: str(entry.value) for setting, entry in found.items()}

    async def declare_topic(self, name: str, *, create: bool = True) -> list[Drift]:
        """Create a topic with a partition for each lane, or compare the one that is there; with `create=False` a missing one is a drift."""
        await self.reach()
        try:
            described = await self.topic(name)
        except Error as error:
            if error.code is not Code.NOT_FOUND:
                raise
            if not create:
                return [Drift(f"topic '{name}'", "exists", "yes", "no")]
            if await self._create(name):
                return []
            described = await self._led(name)
        found = await self.settings("topic", name)
        found |= {"partitions": str(len(described.partitions)), "replicas": str(min(len(each.replicas) for each in described.partitions))}
        wanted = {"partitions": str(LANES), "replicas": str(self.replicas), **self.wanted()}
        drifts = [
            Drift(f"topic '{name}'", each, value, found.get(each, "unset")) for each, value in wanted.items() if found.get(each) != value
        ]
        if int(found["max.message.bytes"]) < self._options.batch_bytes:
            least = f"{self._options.batch_bytes} or more"
            drifts.append(Drift(f"topic '{name}'", "max.message.bytes", least, found["max.message.bytes"]))
        return drifts

    async def _create(self, name: str) -> bool:
        """Create a topic and wait until each partition has a leader; False where somebody else was faster."""
        new = NewTopic(name, num_partitions=LANES, replication_factor=self.replicas, config=self.wanted())
        future = self._client.create_topics([new], request_timeout=ASK)[name]
        try:
            await asyncio.wrap_future(future)
        except KafkaException as error:
            if code_of(error) == _EXISTS:
                self._there.add(name)
                return False
            found = meaning(error, f"Topic '{name}'")
            if isinstance(found, Error) and found.code is Code.PERMISSION_DENIED:
                apply = "run `linkspan broker apply MODULE:APP` with one that may"
                text = f"Topic '{name}' is missing, and this login may not create it: {apply}."
                raise SetupError(text) from error
            raise found from error
        self._there.add(name)
        await self._led(name, LANES)
        return True

    async def _led(self, name: str, partitions: int = 0) -> Any:
        """Describe a topic that was just created, here or elsewhere, once each of its partitions has a leader."""
        for _ in range(_LOOKS):
            described = await self.topic(name)
            if len(described.partitions) >= partitions and all(each.leader is not None for each in described.partitions):
                return described
            await self._clock.sleep(_LOOK)
        raise Error(
            Code.UNAVAILABLE, f"Topic '{name}' was created, but has partitions without a leader: look at the cluster, then try again."
        )

    async def declare_group(self, topic: str, group: str, *, create: bool = True) -> list[Drift]:
        """Give a group its place at the beginning of each partition where it has none yet."""
        count = len((await self.topic(topic)).partitions)
        name = group_of(topic, group)
        try:
            lacking = await asyncio.to_thread(self._begin_group, name, topic, count, create)
        except KafkaException as error:
            raise meaning(error, f"Group '{group}' on '{topic}'") from error
        return [Drift(f"group '{name}'", "places", str(count), str(count - lacking))] if lacking else []

    def _begin_group(self, name: str, topic: str, count: int, create: bool) -> int:  # noqa: FBT001 - called by position on another thread
        """Commit the beginning where nothing is committed; return how many partitions lack a place.

        By a consumer, which is no member: librdkafka's administrative calls to a coordinator have ended the process when their
        connection was lost (an assertion in its queue, 2.16.0).
        """
        consumer: Any = Consumer(self._options.reader(name))
        try:
            places = places_of(consumer, [TopicPartition(topic, each) for each in range(count)], self._clock)
            lacking = [TopicPartition(topic, place.partition, 0) for place in places if place.offset < 0]
            if not lacking or not create:
                return len(lacking)
            try:
                consumer.commit(offsets=lacking, asynchronous=False)
            except KafkaException as error:
                if code_of(error) not in _MEMBERS:
                    raise
            return 0
        finally:
            consumer.close()
