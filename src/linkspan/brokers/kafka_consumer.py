"""One group's delivery from one topic, on the event loop: hands over what a thread fetches, and settles.

The loop owns what is in hand and grants the thread credit for as many messages as there is room, so that in hand and on their way
together never exceed the bound. One reader serves all lanes that a process reads of a topic for a group; each has a bound of its own,
and what comes beyond it waits here while its partition is paused. A member that shares a group has a reader, and one bound, of its own.

Kafka has no redelivery clock and forgets nothing on a reconnect: what is in hand stays in hand until it is settled, its lane is lost
or its process ends. A message that is given back waits here and keeps its room.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from linkspan.brokers.kafka_headers import from_kafka
from linkspan.brokers.kafka_puller import Puller
from linkspan.errors import Code, Error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from linkspan.brokers.kafka_framing import Framing
    from linkspan.brokers.kafka_lane import Intake, Lane
    from linkspan.ports import Runtime

__all__ = ["KafkaDelivery", "KafkaReader", "LaneSubscription", "MemberSubscription"]

logger = logging.getLogger("linkspan.kafka")

FLIGHT = 1000
"""Messages that are on their way from the thread at most."""
BACKLOG, RELIEVED = 256, 64
"""Messages of a lane beyond its bound at which its partition is paused, and at which it goes on."""
AHEAD = 10_000
"""Messages of a lane beyond its oldest unsettled one at which no more of it are fetched; it goes on at half of them."""
PLACED = 5.0
"""Seconds that a new member waits for its first partitions: there may be more members than partitions."""


class KafkaDelivery(msgspec.Struct, eq=False, gc=False):
    """A message in hand. Nothing that it holds holds it, so the garbage collector need not look."""

    topic: str
    headers: bytes
    data: bytes
    reader: KafkaReader
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
            self.reader.settle(self.lane, self.offset)

    def nack(self, delay: float = 0.0) -> None:
        """Give it back."""
        if self.unsettled:
            self.unsettled = False
            self.reader.give_back(self, delay)

    def beat(self) -> None:
        """Do nothing: Kafka has no redelivery clock, and the member's own sign of life goes on beside."""


class KafkaReader:
    """Reads one topic for one group by one consumer."""

    def __init__(self, runtime: Runtime, topic: str, group: str, framing: Framing | None = None) -> None:
        self.topic = topic
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        self._puller = Puller(runtime, topic, group, self, self._call)
        self._puller.framing = framing if framing is not None and framing.frames(topic) else None
        self._ended = asyncio.Event()
        self._joined: asyncio.Future[None] = self._loop.create_future()
        self._joined.add_done_callback(_seen)
        self._placing: dict[Lane, asyncio.Future[None]] = {}
        self._dropping: dict[Lane, asyncio.Future[None]] = {}
        self._blocked: set[Lane] = set()
        self._shared: Intake | None = None
        self._capacity = 0
        self._in_hand = 0
        self._granted = 0
        self._granting = False

    # --- what is read -------------------------------------------------------------------------------

    def start(self, config: dict[str, Any], partitions: int, shared: Intake | None = None) -> None:
        """Begin, with `shared` as a member of the group. Raises `SetupError`."""
        if shared is not None:
            self._shared, self._capacity = shared, shared.prefetch
        self._puller.start(config, partitions, shared)
        self._grant()

    async def joined(self) -> None:
        """Wait for the first partitions of a member. Raises `Error`."""
        try:
            async with asyncio.timeout(PLACED):
                await asyncio.shield(self._joined)
        except TimeoutError:
            logger.info("kafka group has no partition for this member yet", extra={"topic": self.topic})

    async def add(self, lanes: list[Lane]) -> None:
        """Read lanes too. Raises `Error`."""
        placing = [self._placing.setdefault(lane, self._loop.create_future()) for lane in lanes]
        self._capacity += sum(lane.intake.prefetch for lane in lanes)
        self._puller.add(lanes)
        self._has_room()
        try:
            await asyncio.gather(*placing)
        except BaseException:  # also a caller that gave up waiting: nobody would take what comes, nor stop it
            self._capacity -= sum(lane.intake.prefetch for lane in lanes)
            for lane in lanes:
                lane.intake.taking = False
                self._placing.pop(lane, None)
            self._puller.drop(lanes)
            raise

    async def drop(self, lanes: list[Lane]) -> None:
        """Read lanes no more; what is in hand of them can still be settled."""
        if self._ended.is_set():
            return
        dropping = [self._dropping.setdefault(lane, self._loop.create_future()) for lane in lanes]
        self._capacity -= sum(lane.intake.prefetch for lane in lanes)
        self._blocked.difference_update(lanes)
        self._puller.drop(lanes)
        await asyncio.gather(*dropping)

    @property
    def in_hand(self) -> int:
        """Return how many messages are not settled."""
        return self._in_hand

    async def end(self) -> None:
        """Commit, leave the group, end. Idempotent."""
        self._puller.end()
        await self._ended.wait()

    # --- what is in hand ----------------------------------------------------------------------------

    def settle(self, lane: Lane, offset: int) -> None:
        """Take an ack."""
        reached = self._runtime.reached
        reached("broker.ack.before")
        if lane.open:
            lane.settle(offset)
            lane.intake.in_hand -= 1
            self._in_hand -= 1
            if lane.intake.backlog:
                self._hand_on(lane.intake)
            if not self._granting:
                self._has_room()
        reached("broker.ack.after")

    def give_back(self, delivery: KafkaDelivery, delay: float) -> None:
        """Take a nack: it comes again from here."""
        reached = self._runtime.reached
        reached("broker.nack.before")
        if delivery.lane.open:
            if delay > 0.0:
                self._runtime.clock.call_later(delay, self._again, delivery)
            else:
                self._loop.call_soon(self._again, delivery)
        reached("broker.nack.after")

    def _again(self, old: KafkaDelivery) -> None:
        if old.lane.open and old.lane.intake.taking:
            again = KafkaDelivery(old.topic, old.headers, old.data, self, old.lane, old.offset, old.attempt + 1)
            old.lane.intake.deliver(again)

    def _hand_on(self, intake: Intake) -> None:
        """Hand over what came beyond the bound, in another turn: who settles may be called by who is handed over."""
        self._loop.call_soon(self._relieve, intake)

    def _relieve(self, intake: Intake) -> None:
        while intake.backlog and intake.in_hand < intake.prefetch:
            lane, message = intake.backlog.popleft()
            if lane.open and intake.taking:
                self._hand_over(lane, message)

    def _hand_over(self, lane: Lane, message: Any) -> None:
        offset = message.offset()
        lane.take(offset)
        intake = lane.intake
        intake.in_hand += 1
        self._in_hand += 1
        headers = message.headers()
        intake.deliver(KafkaDelivery(self.topic, from_kafka(headers) if headers else b"", message.value() or b"", self, lane, offset))

    def bound(self, intakes: list[Intake], prefetch: int) -> None:
        """Have at most so many of each in hand; credit that the thread has stays."""
        for intake in intakes:
            self._capacity += prefetch - intake.prefetch
            intake.prefetch = prefetch
            self._hand_on(intake)
        self._has_room()

    def _has_room(self) -> None:
        if not self._granting:
            self._granting = True
            self._loop.call_soon(self._grant)

    def _grant(self) -> None:
        """Give the thread credit for the room there is; end a member that was stopped once nothing of it is in hand."""
        self._granting = False
        if self._shared is not None and not self._shared.taking:
            if self._in_hand == 0:
                self._puller.end()
            return
        for lane in [lane for lane in self._blocked if len(lane.intake.backlog) <= RELIEVED and lane.ahead <= AHEAD // 2]:
            lane.blocked = False
            self._blocked.discard(lane)
        free = min(FLIGHT, self._capacity - self._in_hand) - self._granted
        if free > 0:
            self._granted += free
            self._puller.grant(free)

    # --- from the thread ----------------------------------------------------------------------------

    def _call(self, callback: Callable[..., object], *arguments: object) -> bool:
        """Call on the loop, from the thread; False where it has ended."""
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            return False
        return True

    def take(self, lanes: Mapping[int, Lane], messages: list[Any]) -> None:
        """Hand over what the thread brought."""
        self._granted -= len(messages)
        for message in messages:
            lane = lanes.get(message.partition())
            if lane is None or not lane.open or not lane.intake.taking:
                continue
            intake = lane.intake
            if intake.in_hand >= intake.prefetch or intake.backlog:
                intake.backlog.append((lane, message))
                if len(intake.backlog) >= BACKLOG:
                    self._block(lane)
            else:
                self._hand_over(lane, message)
                if lane.ahead > AHEAD:
                    self._block(lane)
        if not self._granting:
            self._has_room()

    def _block(self, lane: Lane) -> None:
        lane.blocked = True
        self._blocked.add(lane)

    def lost(self, lanes: list[Lane]) -> None:
        """Make room for what was in hand of lanes that were closed."""
        for lane in lanes:
            self._in_hand -= lane.in_hand
            lane.intake.in_hand -= lane.in_hand
            lane.in_hand = 0
            self._blocked.discard(lane)
        self._has_room()

    def placed(self, lanes: list[Lane] | None, problem: BaseException | None) -> None:
        """Tell who waits for their lanes."""
        waiting = [self._joined] if lanes is None else [self._placing.pop(lane) for lane in lanes if lane in self._placing]
        for future in waiting:
            if not future.done() and problem is None:
                future.set_result(None)
            elif not future.done() and problem is not None:
                future.set_exception(problem)

    def dropped(self, lane: Lane) -> None:
        """Tell who waits for a lane to be given up."""
        future = self._dropping.pop(lane, None)
        if future is not None and not future.done():
            future.set_result(None)

    def ended(self) -> None:
        """Tell all who wait."""
        self._ended.set()
        for lane in list(self._dropping):
            self.dropped(lane)
        gone = Error(Code.UNAVAILABLE, "The broker was closed: open it and subscribe again.")
        for future in (self._joined, *self._placing.values()):
            if not future.done():
                future.set_exception(gone)
        self._placing.clear()


def _seen(future: asyncio.Future[None]) -> None:
    """Look at a failure that nobody may wait for any more."""
    if not future.cancelled():
        future.exception()


class LaneSubscription:
    """Some lanes of a reader."""

    def __init__(self, reader: KafkaReader, lanes: list[Lane]) -> None:
        self._reader = reader
        self._lanes = lanes
        self.patience = float("inf")  # Kafka has no redelivery clock

    def bound(self, prefetch: int) -> None:
        """Have at most so many of each lane in hand."""
        self._reader.bound([lane.intake for lane in self._lanes if lane.intake.taking], prefetch)

    async def stop(self) -> None:
        """Take no more; deliveries in hand can still be settled."""
        lanes = [lane for lane in self._lanes if lane.intake.taking]
        for lane in lanes:
            lane.intake.taking = False
            lane.intake.backlog.clear()
        await self._reader.drop(lanes)


class MemberSubscription:
    """A member's share of its group's partitions."""

    def __init__(self, reader: KafkaReader, intake: Intake, group: str) -> None:
        self.reader = reader
        self.group = group
        self._intake = intake
        self.patience = float("inf")  # Kafka has no redelivery clock

    def bound(self, prefetch: int) -> None:
        """Have at most so many in hand."""
        self.reader.bound([self._intake], prefetch)

    @property
    def stopped(self) -> bool:
        """Tell whether it takes no more."""
        return not self._intake.taking

    async def stop(self) -> None:
        """Take no more. While something is in hand its partitions stay here, so that it can be settled; the broker's close ends it."""
        self._intake.taking = False
        self._intake.backlog.clear()
        if self.reader.in_hand == 0:
            await self.reader.end()
