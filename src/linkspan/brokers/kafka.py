"""Apache Kafka as a broker: a topic with a partition for each lane, a Kafka group for each group and topic.

confluent-kafka's plain producer and consumer do the work on threads of their own, see `kafka_sender` and `kafka_consumer` for how
they meet the event loop. Kafka has no memory of ids and no batches that are stored whole or not at all: what is sent again is
stored again, and the inbox makes that harmless (ADR 17).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from linkspan.brokers.kafka_admin import Admin, group_of
from linkspan.brokers.kafka_attest import attest
from linkspan.brokers.kafka_consumer import KafkaReader, LaneSubscription, MemberSubscription
from linkspan.brokers.kafka_framing import framing_of
from linkspan.brokers.kafka_headers import to_kafka
from linkspan.brokers.kafka_lane import Intake, Lane
from linkspan.brokers.kafka_options import KafkaOptions
from linkspan.brokers.kafka_sender import Record, Sender
from linkspan.envelope import LANES
from linkspan.errors import Code, Error, SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import Any

    from linkspan.ports import Delivery, Drift, Durability, Outgoing, Runtime, Subscription

__all__ = ["KafkaBroker"]

MIN_BATCH, MAX_BATCH = 2, 1000
OVERHEAD = 512
"""Bytes that Kafka's own framing of one message may need."""
_CLOSE_LIMIT = 2.0


class KafkaBroker:
    """A broker on Apache Kafka 3.7 or newer. `KafkaOptions` says what the URL and `options` may hold."""

    def __init__(self, url: str, *, runtime: Runtime, user: str = "", password: str = "", options: Mapping[str, Any] | None = None) -> None:
        self.runtime = runtime
        self._options = KafkaOptions(url, user, password, options)
        self._sender = Sender(self._options.sender(), runtime, self._options.publish_timeout)
        self._framing = framing_of(self._options.confluent)
        self._admin: Admin | None = None
        self._topics: dict[str, tuple[int, int]] = {}  # partitions and the largest message, of the topics that are known
        self._asking: dict[str, deque[tuple[Outgoing, asyncio.Future[None]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._members: list[MemberSubscription] = []
        self._readers: dict[str, KafkaReader] = {}
        self._closing: asyncio.Task[None] | None = None

    # --- connection ---------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Tell whether a broker answered, as far as is known."""
        return self._admin is not None and self._sender.up

    @property
    def admin(self) -> Admin:
        """The connection that asks and declares."""
        if self._admin is None:
            raise Error(Code.UNAVAILABLE, "The Kafka broker is not open: open it first.")
        return self._admin

    async def open(self) -> None:
        """Connect. Raises `Error(UNAVAILABLE)`, or `SetupError` for wrong credentials or options."""
        if self._admin is not None:
            return
        admin = Admin(self._options, self.runtime.clock)
        self._sender.start()
        try:
            await admin.reach()
        except BaseException as error:
            refused = self._sender.refused
            await self._sender.aclose(_CLOSE_LIMIT)
            await asyncio.to_thread(admin.close)
            if refused:
                raise SetupError("The Kafka brokers refused the login: check user, password and 'sasl.mechanism'.") from error
            if isinstance(error, Error):
                raise Error(Code.UNAVAILABLE, "No Kafka broker answers: start one, or check the addresses.") from error
            raise
        self._admin = admin

    async def aclose(self) -> None:
        """Commit, close, fail what is in flight."""
        if self._closing is None and self._admin is not None:
            self._closing = asyncio.get_running_loop().create_task(self._close(), name="linkspan kafka close")
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        admin, self._admin = self.admin, None
        readers = [*self._readers.values(), *[each.reader for each in self._members]]
        self._readers, self._members = {}, []
        for task in self._tasks:
            task.cancel()
        self._refuse_asking(Error(Code.UNAVAILABLE, "The broker was closed: open it again, then send the message again with the same id."))
        await asyncio.gather(self._sender.aclose(_CLOSE_LIMIT), *[reader.end() for reader in readers])
        await asyncio.to_thread(admin.close)
        self._closing = None

    # --- topics -------------------------------------------------------------------------------------

    async def declare(self, topics: Iterable[str], groups: Iterable[tuple[str, str]], *, lanes: bool = False) -> list[Drift]:  # noqa: ARG002 - a group has a place per lane always
        """Create missing topics, and give missing groups their place at the beginning; report what differs."""
        return await self._declare(topics, groups, create=True)

    async def compare(self, topics: Iterable[str], groups: Iterable[tuple[str, str]], *, lanes: bool = False) -> list[Drift]:  # noqa: ARG002 - as above
        """Return what is missing or has other settings than declared; change nothing."""
        return await self._declare(topics, groups, create=False)

    async def _declare(self, topics: Iterable[str], groups: Iterable[tuple[str, str]], *, create: bool) -> list[Drift]:
        admin, drifts = self.admin, list["Drift"]()
        for topic in topics:
            drifts += await admin.declare_topic(topic, create=create)
            if create:
                await self._look_up(topic)
        for topic, group in groups:
            drifts += await admin.declare_group(topic, group, create=create)
        return drifts

    async def _look_up(self, topic: str) -> tuple[int, int]:
        """Return a topic's partitions and the largest message that it takes. Raises `Error(NOT_FOUND)`."""
        known = self._topics.get(topic)
        if known is None:
            admin = self.admin
            described = await admin.topic(topic)
            limit = int((await admin.settings("topic", topic)).get("max.message.bytes", self._options.max_message))
            if self._framing is not None and self._framing.frames(topic):
                await self._framing.prepare(topic)
            known = self._topics[topic] = (len(described.partitions), min(limit, self._options.max_message) - OVERHEAD)
        return known

    async def attest(self, topics: Iterable[str] = (), groups: Iterable[tuple[str, str]] = ()) -> Durability:  # noqa: ARG002 - a group has no settings here
        """Read what the cluster tells about itself and its topics."""
        return await attest(self.admin, sorted({*self._topics, *topics}), self._options)

    # --- subscribe ----------------------------------------------------------------------------------

    async def subscribe(
        self,
        topic: str,
        group: str,
        receive: Callable[[Delivery], None],
        *,
        prefetch: int,
        lanes: Collection[int] | None = None,
    ) -> Subscription:
        """Deliver from the group's place: its share of the partitions, or those of `lanes`, whoever else reads them."""
        if prefetch < 1:
            raise SetupError(f"A subscription to '{topic}' cannot prefetch {prefetch}: use 1 or more.")
        self.admin  # noqa: B018 - raises where the broker is not open
        count, _ = await self._look_up(topic)
        if lanes is None:
            return await self._join(topic, group, Intake(receive, prefetch), count)
        reader = self._reader(topic, group, count)
        taken = [Lane(each, Intake(receive, prefetch)) for each in range(count) if each % LANES in set(lanes)]
        await reader.add(taken)
        return LaneSubscription(reader, taken)

    def _reader(self, topic: str, group: str, count: int) -> KafkaReader:
        """Return the one reader of a group's lanes."""
        name = group_of(topic, group)
        reader = self._readers.get(name)
        if reader is None:
            reader = self._readers[name] = KafkaReader(self.runtime, topic, group, self._framing)
            reader.start(self._options.lane_reader(name), count)
        return reader

    async def _join(self, topic: str, group: str, intake: Intake, count: int) -> Subscription:
        """Become a member of a group, once those that were stopped here have left it: what they have in hand is to come again."""
        stopped = [each for each in self._members if each.stopped and (each.reader.topic, each.group) == (topic, group)]
        await asyncio.gather(*[each.reader.end() for each in stopped])
        reader = KafkaReader(self.runtime, topic, group, self._framing)
        subscription = MemberSubscription(reader, intake, group)
        self._members = [each for each in self._members if each not in stopped] + [subscription]
        reader.start(self._options.reader(group_of(topic, group)), count, intake)
        try:
            await reader.joined()
        except BaseException:
            await reader.end()
            raise
        return subscription

    # --- publish ------------------------------------------------------------------------------------

    def publish(self, message: Outgoing) -> asyncio.Future[None]:
        """Send one message."""
        self.runtime.reached("broker.publish.before")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._publish(message, future)
        except Error as error:
            future.set_exception(error)
        return future

    def _publish(self, message: Outgoing, future: asyncio.Future[None]) -> None:
        known = self._topics.get(message.topic)
        if known is not None:
            self._sender.send(self._record(message, known), future)
            return
        self.admin  # noqa: B018 - raises where the broker is not open
        waiting = self._asking.get(message.topic)
        if waiting is None:
            waiting = self._asking[message.topic] = deque()
            task = asyncio.get_running_loop().create_task(self._publish_asked(message.topic), name="linkspan kafka topic")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        waiting.append((message, future))

    async def _publish_asked(self, topic: str) -> None:
        """Send what came for a topic before anything was known of it, in order."""
        try:
            await self._look_up(topic)
        except (Error, SetupError) as error:
            code = error.code if isinstance(error, Error) else Code.FAILED_PRECONDITION
            for _, future in self._asking.pop(topic, ()):
                if not future.done():
                    future.set_exception(Error(code, getattr(error, "message", str(error))))
            return
        for message, future in self._asking.pop(topic, ()):
            try:
                self._publish(message, future)
            except Error as error:
                if not future.done():
                    future.set_exception(error)

    def _refuse_asking(self, error: Error) -> None:
        asking, self._asking = self._asking, {}
        for waiting in asking.values():
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)

    async def publish_batch(self, messages: Sequence[Outgoing]) -> None:
        """Store messages of one topic in order. Kafka may store a part of them: then it fails with ABORTED, as when it is in doubt."""
        self.runtime.reached("broker.batch.before")
        if not MIN_BATCH <= len(messages) <= MAX_BATCH or len({message.topic for message in messages}) != 1:
            raise Error(Code.INVALID_ARGUMENT, f"A batch has {len(messages)} messages: send {MIN_BATCH} to {MAX_BATCH} of one topic.")
        known = await self._look_up(messages[0].topic)
        records = [self._record(message, known) for message in messages]
        try:
            await self._sender.send_all(records)
        except Error as error:
            if error.code is Code.NOT_FOUND:
                raise
            raise Error(Code.ABORTED, f"The batch was not confirmed, send its messages singly: {error.message}") from error

    def _record(self, message: Outgoing, known: tuple[int, int]) -> Record:
        partitions, limit = known
        size = len(message.headers) + len(message.key) + len(message.data)
        if size > limit:
            raise Error(
                Code.INVALID_ARGUMENT, f"A message of {size} bytes is too large for '{message.topic}': at most {limit} are accepted."
            )
        headers, data = to_kafka(message.headers, message.sequence), message.data
        if self._framing is not None and self._framing.frames(message.topic):
            headers, data = self._framing.frame(message.topic, headers, data)
        return (message.topic, message.lane % partitions, message.key, data, headers)
