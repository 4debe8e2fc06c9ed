"""One group's delivery from one topic: a thread that consumes lists, an event loop that hands over and settles.

The thread owns the librdkafka consumer; the loop owns what is in hand. The loop grants the thread **credit** for as many messages as
there is room, so that in hand and on their way together never exceed the prefetch. Each assigned partition is a `Lane`; what the
thread commits is the lane's contiguous settled prefix, never more. Partitions come by `assign` where lanes were asked for, and from
the group's protocol otherwise; one that is revoked is first committed, then closed, which makes its deliveries in hand harmless.

Kafka has no redelivery clock and forgets nothing on a reconnect: what is in hand stays in hand until it is settled, its lane is lost
or its process ends. A message that is given back waits here and keeps its room.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from linkspan.brokers.kafka_errors import meaning, reason_of
from linkspan.brokers.kafka_headers import from_kafka
from linkspan.brokers.kafka_lane import Lane
from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from linkspan.ports import Delivery, Runtime

__all__ = ["KafkaDelivery", "KafkaSubscription"]

logger = logging.getLogger("linkspan.kafka")

BATCH = 500
"""Messages that the thread hands over at most at a time."""
POLL = 0.1
"""Seconds that the thread waits at most for a message: so long may a commit or a stop wait for it."""
NO_ROOM = 0.5
"""Seconds without room after which partitions are paused, so that the thread can go on serving its group."""
COMMIT = 0.2
"""Seconds between two commits."""
AHEAD = 10_000
"""Messages of a lane beyond its oldest unsettled one at which no more of it are fetched."""
ASK = 10.0
"""Seconds for a question to the group's coordinator."""
PLACED = 5.0
"""Seconds that a new member waits for its first partitions: there may be more members than partitions."""


class KafkaDelivery(msgspec.Struct, eq=False, gc=False):
    """A message in hand. Nothing that it holds holds it, so the garbage collector need not look."""

    topic: str
    headers: bytes
    data: bytes
    subscription: KafkaSubscription
    lane: Lane
    offset: int
    attempt: int = 1
    unsettled: bool = True

    @property
    def place(self) -> str:
        """Name its place in the topic."""
        return f"{self.lane.partition}-{self.offset}"

    def ack(self) -> None:
        """Settle it."""
        if self.unsettled:
            self.unsettled = False
            self.subscription.settle(self.lane, self.offset)

    def nack(self, delay: float = 0.0) -> None:
        """Give it back."""
        if self.unsettled:
            self.unsettled = False
            self.subscription.give_back(self, delay)

    def beat(self) -> None:
        """Do nothing: Kafka has no redelivery clock, and the member's own sign of life goes on beside."""


class KafkaSubscription:
    """A group's open delivery from a topic."""

    def __init__(
        self, runtime: Runtime, topic: str, group: str, receive: Callable[[Delivery], None], prefetch: int, partitions: Sequence[int] | None
    ) -> None:
        self.topic = topic
        self.group = group
        self._runtime = runtime
        self._deliver = receive
        self._prefetch = prefetch
        self._partitions = partitions
        # the loop's
        self._loop = asyncio.get_running_loop()
        self._placed: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._in_hand = 0
        self._granted = 0
        self._granting = False
        self._taking = True
        # the thread's, or both's
        self._room = threading.Condition()
        self._credit = 0
        self._lanes: Mapping[int, Lane] = {}  # replaced, never changed: a batch on its way keeps the one it came from
        self._held: deque[Any] = deque()
        self._paused: set[int] = set()
        self._ending = False
        self._last_commit = 0.0
        self._thread: threading.Thread | None = None

    # --- the loop -----------------------------------------------------------------------------------

    async def start(self, config: dict[str, Any]) -> None:
        """Begin. Raises `Error` when the brokers cannot."""
        try:
            consumer: Any = Consumer({**config, "error_cb": self._on_error, "on_commit": self._on_commit})
        except KafkaException as error:
            raise SetupError(f"The Kafka options are not understood ({error}): give what librdkafka takes.") from error
        self._grant()
        self._thread = threading.Thread(target=self._run, args=(consumer,), name="linkspan kafka consume", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(PLACED if self._partitions is None else None):
                await asyncio.shield(self._placed)
        except TimeoutError:
            logger.info("kafka group has no partition for this member yet", extra={"topic": self.topic, "group": self.group})
        except BaseException:
            await self.end()
            raise

    @property
    def stopped(self) -> bool:
        """Tell whether it takes no more."""
        return not self._taking

    @property
    def ended(self) -> bool:
        """Tell whether it has left its group."""
        return self._ended.is_set()

    async def stop(self) -> None:
        """Take no more. While something is in hand, its lanes stay here; the last one settled ends it, or `end`."""
        self._taking = False
        if self._in_hand == 0:
            await self.end()
        else:
            with self._room:
                self._credit = 0
                self._room.notify()

    async def end(self) -> None:
        """Commit, leave the group, and let the thread end. Idempotent."""
        self._taking = False
        self._finish()
        await self._ended.wait()

    def _finish(self) -> None:
        self._ending = True
        with self._room:
            self._room.notify()

    def settle(self, lane: Lane, offset: int) -> None:
        """Take an ack."""
        reached = self._runtime.reached
        reached("broker.ack.before")
        if lane.open:
            lane.settle(offset)
            self._in_hand -= 1
            self._has_room()
        reached("broker.ack.after")

    def give_back(self, delivery: KafkaDelivery, delay: float) -> None:
        """Take a nack: it comes again from here."""
        reached = self._runtime.reached
        reached("broker.nack.before")
        if delivery.lane.open and not self._ending:
            if delay > 0.0:
                self._runtime.clock.call_later(delay, self._again, delivery)
            else:
                self._loop.call_soon(self._again, delivery)
        reached("broker.nack.after")

    def _again(self, old: KafkaDelivery) -> None:
        if old.lane.open and self._taking:
            self._deliver(KafkaDelivery(old.topic, old.headers, old.data, self, old.lane, old.offset, old.attempt + 1))

    def _has_room(self) -> None:
        if not self._granting:
            self._granting = True
            self._loop.call_soon(self._grant)

    def _grant(self) -> None:
        """Give the thread credit for what was settled in this turn of the loop; end when that was the last after a stop."""
        self._granting = False
        if not self._taking:
            if self._in_hand == 0:
                self._finish()
            return
        free = self._prefetch - self._in_hand - self._granted
        if free > 0:
            self._granted += free
            with self._room:
                self._credit += free
                self._room.notify()

    def _take(self, lanes: Mapping[int, Lane], messages: list[Any]) -> None:
        """Hand over what the thread brought."""
        self._granted -= len(messages)
        deliver, topic = self._deliver, self.topic
        for message in messages:
            lane = lanes.get(message.partition())
            if lane is None or not lane.open or not self._taking:
                continue
            offset = message.offset()
            lane.take(offset)
            self._in_hand += 1
            deliver(KafkaDelivery(topic, from_kafka(message.headers()), message.value() or b"", self, lane, offset))
        if self._prefetch > self._in_hand + self._granted:
            self._has_room()

    def _forget(self, lanes: list[Lane]) -> None:
        """Make room for what was in hand of lanes that are lost."""
        for lane in lanes:
            self._in_hand -= lane.in_hand
            lane.in_hand = 0
        self._has_room()

    def _is_placed(self, problem: BaseException | None = None) -> None:
        if not self._placed.done():
            if problem is None:
                self._placed.set_result(None)
            else:
                self._placed.set_exception(problem)

    # --- the thread ---------------------------------------------------------------------------------

    def _call(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop has ended: nobody is left to be told
            self._ending = True

    def _run(self, consumer: Any) -> None:
        try:
            self._begin(consumer)
            while not self._ending:
                self._try_turn(consumer)
        except KafkaException as error:
            self._call(self._is_placed, meaning(error, f"Group '{self.group}' on '{self.topic}'"))
        finally:
            self._leave(consumer)
            self._call(self._ended.set)

    def _try_turn(self, consumer: Any) -> None:
        """Go on whatever librdkafka says: a group must not fall silent."""
        try:
            self._turn(consumer)
        except KafkaException as error:
            extra = {"topic": self.topic, "group": self.group, "reason": reason_of(error)}
            logger.warning("kafka subscription failed; it goes on", extra=extra)
            with self._room:
                self._room.wait(NO_ROOM)

    def _begin(self, consumer: Any) -> None:
        if self._partitions is None:
            consumer.subscribe([self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
            return
        places = consumer.committed([TopicPartition(self.topic, partition) for partition in self._partitions], timeout=ASK)
        for place in places:
            if place.error is not None:
                raise KafkaException(place.error)
            place.offset = place.offset if place.offset >= 0 else OFFSET_BEGINNING
        self._lanes = {place.partition: Lane(place.partition) for place in places}
        consumer.assign(places)
        self._call(self._is_placed)

    def _turn(self, consumer: Any) -> None:
        """Wait for room, take what there is, commit what is settled."""
        with self._room:
            if self._credit == 0 and not self._paused:
                self._room.wait(NO_ROOM)
            credit = self._credit
        self._choose(consumer, room=credit > 0)
        messages = self._fetch(consumer, min(credit, BATCH))
        if messages:
            with self._room:
                self._credit = max(0, self._credit - len(messages))
            self._call(self._take, self._lanes, messages)
        self._commit(consumer)

    def _fetch(self, consumer: Any, count: int) -> list[Any]:
        """Return up to `count` messages: wait for the first one, then take what is there."""
        if self._held and count:
            return [self._held.popleft() for _ in range(min(count, len(self._held)))]
        first = consumer.poll(POLL)
        if first is None:
            return []
        if count == 0:
            self._held += self._whole([first])
            return []
        return self._whole([first, *(consumer.consume(count - 1, 0) if count > 1 else ())])

    def _whole(self, messages: list[Any]) -> list[Any]:
        """Leave out what is an error and no message."""
        if all(message.error() is None for message in messages):
            return messages
        for message in messages:
            if message.error() is not None:
                self._on_error(message.error())
        return [message for message in messages if message.error() is None]

    def _choose(self, consumer: Any, *, room: bool) -> None:
        """Pause what may not be fetched now, and resume what may."""
        lanes = self._lanes
        wanted = {each for each, lane in lanes.items() if not room or lane.ahead > AHEAD}
        if wanted == self._paused:
            return
        if more := wanted - self._paused:
            consumer.pause([TopicPartition(self.topic, partition) for partition in more])
        if less := {each for each in self._paused - wanted if each in lanes}:
            consumer.resume([TopicPartition(self.topic, partition) for partition in less])
        self._paused = wanted

    def _commit(self, consumer: Any) -> None:
        now = self._runtime.clock.monotonic()
        if now - self._last_commit >= COMMIT:
            places = self._moved(self._lanes.values())
            if places:
                self._last_commit = now
                consumer.commit(offsets=places, asynchronous=True)

    def _moved(self, lanes: Any) -> list[TopicPartition]:
        """Return what to commit, and note it as committed."""
        places: list[TopicPartition] = []
        for lane in lanes:
            floor = lane.floor
            if floor > lane.committed:
                lane.committed = floor
                places.append(TopicPartition(self.topic, lane.partition, floor))
        return places

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """Commit again what could not be committed."""
        failed = [place for place in places if error is not None or place.error is not None]
        if not failed:
            return
        logger.info("kafka commit failed", extra={"topic": self.topic, "group": self.group, "reason": reason_of(error or failed[0].error)})
        self._last_commit = self._runtime.clock.monotonic() + 1.0
        for place in failed:
            lane = self._lanes.get(place.partition)
            if lane is not None:
                lane.committed = -1

    def _commit_now(self, consumer: Any, lanes: list[Lane]) -> None:
        for lane in lanes:
            lane.committed = -1
        places = self._moved(lanes)
        if not places:
            return
        try:
            consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            logger.info("kafka commit failed", extra={"topic": self.topic, "group": self.group, "reason": reason_of(error)})

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._lanes = {**self._lanes, **{each.partition: Lane(each.partition) for each in partitions}}
        consumer.incremental_assign(partitions)
        if partitions:
            self._call(self._is_placed)

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._commit_now(consumer, self._close(partitions))
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Close lanes that are another member's already: they cannot be committed any more."""
        self._close(partitions)
        consumer.incremental_unassign(partitions)

    def _close(self, partitions: list[TopicPartition]) -> list[Lane]:
        gone = {each.partition for each in partitions}
        closed = [lane for partition, lane in self._lanes.items() if partition in gone]
        for lane in closed:
            lane.open = False
        self._lanes = {partition: lane for partition, lane in self._lanes.items() if partition not in gone}
        self._paused -= gone
        self._held = deque(message for message in self._held if message.partition() not in gone)
        self._call(self._forget, closed)
        return closed

    def _leave(self, consumer: Any) -> None:
        """Commit, close the lanes, leave the group."""
        lanes = list(self._lanes.values())
        for lane in lanes:
            lane.open = False
        try:
            self._commit_now(consumer, lanes)
            consumer.close()
        except (KafkaException, RuntimeError) as error:
            logger.info("kafka consumer not closed in order", extra={"topic": self.topic, "reason": type(error).__name__})

    def _on_error(self, error: KafkaError) -> None:
        logger.info("kafka subscription reported an error", extra={"topic": self.topic, "group": self.group, "reason": reason_of(error)})
