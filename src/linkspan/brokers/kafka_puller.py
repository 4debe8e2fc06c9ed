"""The thread that owns a librdkafka consumer: fetches lists, commits what is settled, assigns and gives up partitions.

It fetches as much as it has **credit** for. Partitions come by `assign` where lanes were asked for, and from the group's protocol
otherwise; one that is revoked is first committed, then closed, which makes its deliveries in hand harmless. What it commits is each
lane's contiguous settled prefix, never more.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from linkspan.brokers.kafka_errors import meaning, reason_of
from linkspan.brokers.kafka_lane import NOWHERE, Lane
from linkspan.brokers.kafka_places import places_of
from linkspan.errors import Code, Error, SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from linkspan.brokers.kafka_framing import Framing
    from linkspan.brokers.kafka_lane import Intake
    from linkspan.ports import Runtime

__all__ = ["Puller", "Reader"]

logger = logging.getLogger("linkspan.kafka")

BATCH = 500
"""Messages that the thread hands over at most at a time."""
POLL = 0.1
"""Seconds that the thread waits at most for a message: so long may a commit or a stop wait for it."""
BUSY_POLL = 0.01
"""The same, while a lane is paused that may be resumed at any time."""
NO_ROOM = 0.5
"""Seconds without room after which partitions are paused, so that the thread can go on serving its group."""
COMMIT = 0.2
"""Seconds between two commits."""
COMMITTED = 3.0
"""Seconds that a last commit is waited for."""


class Reader(Protocol):
    """The event loop's side; each is called on the loop."""

    def take(self, lanes: Mapping[int, Lane], messages: list[Any]) -> None:
        """Hand over what was fetched; `lanes` are those of the fetch."""
        ...

    def lost(self, lanes: list[Lane]) -> None:
        """Make room for what was in hand of lanes that were closed."""
        ...

    def placed(self, lanes: list[Lane] | None, problem: BaseException | None) -> None:
        """Note that these lanes were assigned (None: by the group), or why not."""
        ...

    def dropped(self, lane: Lane) -> None:
        """Note that a lane was given up."""
        ...

    def ended(self) -> None:
        """Note that the thread has ended."""
        ...


class Puller:
    """One consumer and its thread. `call` calls on the loop; `shared` is the bound of a member that shares its group's partitions."""

    def __init__(self, runtime: Runtime, topic: str, group: str, reader: Reader, call: Callable[..., bool]) -> None:
        self._runtime = runtime
        self._topic = topic
        self._group = group
        self._reader = reader
        self._call_on_loop = call
        self.framing: Framing | None = None
        """Takes Confluent's frame off, where the topic has one."""
        self._shared: Intake | None = None
        self._room = threading.Condition()
        self._credit = 0
        self._lanes: Mapping[int, Lane] = {}  # replaced, never changed: a batch on its way keeps the one it came from
        self._parting: list[Lane] = []
        self._adding: deque[Lane] = deque()
        self._dropping: deque[Lane] = deque()
        self._held: deque[Any] = deque()
        self._paused: set[int] = set()
        self._ending = False
        self._next_commit = 0.0
        self._awaited = 0
        self._consumer: Any = None

    # --- for the loop -------------------------------------------------------------------------------

    def start(self, config: dict[str, Any], partitions: int, shared: Intake | None) -> None:
        """Begin; with `shared` as a member that takes its share of the topic's partitions. Raises `SetupError`."""
        try:
            self._consumer = Consumer({**config, "error_cb": self._on_error, "on_commit": self._on_commit})
        except KafkaException as error:
            raise SetupError(f"The Kafka options are not understood ({error}): give what librdkafka takes.") from error
        self._shared = shared
        threading.Thread(target=self._run, args=(partitions,), name="linkspan kafka consume", daemon=True).start()

    def grant(self, credit: int) -> None:
        """Let it fetch so many more."""
        with self._room:
            self._credit += credit
            self._room.notify()

    def add(self, lanes: Iterable[Lane]) -> None:
        """Assign lanes; `Reader.placed` tells how it went."""
        self._adding.extend(lanes)
        self.wake()

    def drop(self, lanes: Iterable[Lane]) -> None:
        """Commit lanes and give them up; what is in hand of them can still be settled. `Reader.dropped` tells when it is done."""
        self._dropping.extend(lanes)
        self.wake()

    def end(self) -> None:
        """Commit, leave the group, and let the thread end."""
        self._ending = True
        self.wake()

    def wake(self) -> None:
        """Wake it where it waits for room."""
        with self._room:
            self._room.notify()

    # --- the thread ---------------------------------------------------------------------------------

    def _call(self, callback: Callable[..., object], *arguments: object) -> None:
        if not self._call_on_loop(callback, *arguments):
            self._ending = True

    def _run(self, partitions: int) -> None:
        try:
            if self._shared is not None:
                self._join(partitions)
            while not self._ending:
                self._try_turn()
        except KafkaException as error:
            self._call(self._reader.placed, None, meaning(error, f"Group '{self._group}' on '{self._topic}'"))
        except Error as error:
            self._call(self._reader.placed, None, error)
        finally:
            self._leave()
            self._call(self._reader.ended)

    def _join(self, partitions: int) -> None:
        """Join the group, if it was declared."""
        self._places([TopicPartition(self._topic, each) for each in range(partitions)])
        self._consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def _places(self, wanted: list[TopicPartition]) -> list[TopicPartition]:
        """Return the group's places. Raises KafkaException, and `Error(NOT_FOUND)` where it has none of them."""
        places = places_of(self._consumer, wanted, self._runtime.clock)
        if all(place.offset < 0 for place in places):
            raise Error(Code.NOT_FOUND, f"Group '{self._group}' does not exist on '{self._topic}': declare it first.")
        return places

    def _try_turn(self) -> None:
        """Go on whatever librdkafka says: a group must not fall silent."""
        try:
            self._turn()
        except KafkaException as error:
            extra = {"topic": self._topic, "group": self._group, "reason": reason_of(error)}
            logger.warning("kafka subscription failed; it goes on", extra=extra)
            with self._room:
                self._room.wait(NO_ROOM)

    def _turn(self) -> None:
        """Do what was ordered, wait for room, take what there is, commit what is settled."""
        if self._dropping:
            self._drop()
        if self._adding:
            self._add()
        with self._room:
            if self._credit == 0 and not self._paused and not self._adding and not self._dropping and not self._ending:
                self._room.wait(NO_ROOM)
            credit = self._credit
        self._choose(room=credit > 0)
        messages = self._fetch(min(credit, BATCH))
        if messages:
            if self.framing is not None:
                for message in messages:
                    self.framing.unwrap(message, self._is_ending)
            with self._room:
                self._credit = max(0, self._credit - len(messages))
            self._call(self._reader.take, self._lanes, messages)
        if self._runtime.clock.monotonic() >= self._next_commit:
            self._commit()

    def _is_ending(self) -> bool:
        return self._ending

    def _fetch(self, count: int) -> list[Any]:
        """Return up to `count` messages: wait for the first one, then take what is there."""
        if self._held and count:
            return [self._held.popleft() for _ in range(min(count, len(self._held)))]
        first = self._consumer.poll(BUSY_POLL if self._paused else POLL)
        if first is None:
            return []
        if count == 0:
            self._held += self._whole([first])
            return []
        return self._whole([first, *(self._consumer.consume(count - 1, 0) if count > 1 else ())])

    def _whole(self, messages: list[Any]) -> list[Any]:
        """Leave out what is an error and no message."""
        if not any(message.error() for message in messages):
            return messages
        for message in messages:
            if message.error() is not None:
                self._on_error(message.error())
        return [message for message in messages if message.error() is None]

    def _choose(self, *, room: bool) -> None:
        """Pause what should not be fetched now, and resume what may be."""
        lanes = self._lanes
        wanted = {each for each, lane in lanes.items() if not room or lane.blocked}
        if wanted == self._paused:
            return
        if more := wanted - self._paused:
            self._consumer.pause([TopicPartition(self._topic, each) for each in more])
        if less := {each for each in self._paused - wanted if each in lanes}:
            self._consumer.resume([TopicPartition(self._topic, each) for each in less])
        self._paused = wanted

    # --- commits ------------------------------------------------------------------------------------

    def _commit(self) -> None:
        places = self._moved([*self._lanes.values(), *self._parting])
        self._parting = [lane for lane in self._parting if lane.in_hand]
        if places:
            self._next_commit = self._runtime.clock.monotonic() + COMMIT
            self._consumer.commit(offsets=places, asynchronous=True)

    def _moved(self, lanes: Iterable[Lane]) -> list[TopicPartition]:
        """Return what to commit, and note it as committed."""
        places: list[TopicPartition] = []
        for lane in lanes:
            floor = lane.floor
            if floor > lane.committed:
                lane.committed = floor
                places.append(TopicPartition(self._topic, lane.partition, floor))
        return places

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """Commit again what could not be committed."""
        self._awaited = max(0, self._awaited - 1)
        failed = [place for place in places if error is not None or place.error is not None]
        if not failed:
            return
        self._log_failed(error or failed[0].error)
        self._next_commit = self._runtime.clock.monotonic() + 1.0
        again = {place.partition for place in failed}
        for lane in (*self._lanes.values(), *self._parting):
            if lane.partition in again:
                lane.committed = NOWHERE

    def _log_failed(self, error: KafkaError | BaseException | None) -> None:
        logger.info("kafka commit failed", extra={"topic": self._topic, "group": self._group, "reason": reason_of(error)})

    def _commit_last(self, lanes: Iterable[Lane]) -> None:
        """Commit and wait for it, but not for ever: librdkafka would, while no coordinator answers."""
        places = self._moved(lanes)
        if not places:
            return
        deadline = self._runtime.clock.monotonic() + COMMITTED
        self._awaited = 1
        self._consumer.commit(offsets=places, asynchronous=True)
        while self._awaited and self._runtime.clock.monotonic() < deadline:
            message = self._consumer.poll(BUSY_POLL)
            if message is not None:
                self._held += self._whole([message])

    # --- partitions ---------------------------------------------------------------------------------

    def _add(self) -> None:
        asked = [self._adding.popleft() for _ in range(len(self._adding))]
        lanes = [lane for lane in asked if lane.intake.taking]  # who asked may have given up meanwhile
        if not lanes:
            return
        wanted = {lane.partition for lane in lanes}
        self._part_with({partition for partition in wanted if partition in self._lanes})
        before = [lane for lane in self._parting if lane.partition in wanted]
        self._commit_last(before)
        for lane in before:
            lane.open = False
        self._parting = [lane for lane in self._parting if lane.partition not in wanted]
        self._call(self._reader.lost, before)
        try:
            places = self._places([TopicPartition(self._topic, each) for each in wanted])
            for place in places:
                place.offset = place.offset if place.offset >= 0 else OFFSET_BEGINNING
            self._consumer.incremental_assign(places)
            self._lanes = {**self._lanes, **{lane.partition: lane for lane in lanes}}
        except KafkaException as error:
            self._refuse(lanes, meaning(error, f"Group '{self._group}' on '{self._topic}'"))
        except Error as error:
            self._refuse(lanes, error)
        else:
            self._call(self._reader.placed, lanes, None)

    def _refuse(self, lanes: list[Lane], problem: BaseException) -> None:
        self._call(self._reader.placed, lanes, problem)

    def _part_with(self, gone: set[int]) -> None:
        """Fetch partitions no more; what is in hand of them can still be settled."""
        if gone:
            self._parting += self._forget(gone)
            self._consumer.incremental_unassign([TopicPartition(self._topic, each) for each in gone])

    def _drop(self) -> None:
        lanes = [self._dropping.popleft() for _ in range(len(self._dropping))]
        there = [lane for lane in lanes if self._lanes.get(lane.partition) is lane]
        self._part_with({lane.partition for lane in there})
        self._commit_last(there)
        self._parting = [lane for lane in self._parting if lane.in_hand]
        for lane in lanes:
            self._call(self._reader.dropped, lane)

    def _forget(self, gone: set[int]) -> list[Lane]:
        """Take partitions out of what is fetched."""
        lanes = [lane for partition, lane in self._lanes.items() if partition in gone]
        self._lanes = {partition: lane for partition, lane in self._lanes.items() if partition not in gone}
        self._paused -= gone
        self._held = deque(message for message in self._held if message.partition() not in gone)
        return lanes

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        assert self._shared is not None  # noqa: S101 - only a member is assigned partitions
        shared = self._shared
        self._lanes = {**self._lanes, **{each.partition: Lane(each.partition, shared) for each in partitions}}
        consumer.incremental_assign(partitions)
        if partitions:
            self._call(self._reader.placed, None, None)

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        places = self._moved(self._close(partitions))
        if places:
            try:
                consumer.commit(offsets=places, asynchronous=False)
            except KafkaException as error:
                self._log_failed(error)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Close lanes that are another member's already: they cannot be committed any more."""
        self._close(partitions)
        consumer.incremental_unassign(partitions)

    def _close(self, partitions: list[TopicPartition]) -> list[Lane]:
        closed = self._forget({each.partition for each in partitions})
        for lane in closed:
            lane.open = False
        self._call(self._reader.lost, closed)
        return closed

    def _leave(self) -> None:
        """Commit, close the lanes, leave the group."""
        try:
            lanes = [*self._lanes.values(), *self._parting]
            self._commit_last(lanes)
            for lane in lanes:
                lane.open = False
            self._consumer.close()
        except (KafkaException, RuntimeError) as error:
            logger.info("kafka consumer not closed in order", extra={"topic": self._topic, "reason": type(error).__name__})

    def _on_error(self, error: KafkaError) -> None:
        logger.info("kafka subscription reported an error", extra={"topic": self._topic, "group": self._group, "reason": reason_of(error)})
