"""A broker inside the process, for tests: NATS's semantics, the injected clock, and faults on demand."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Drift, Durability

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from linkspan.ports import Delivery, Outgoing, Runtime, Subscription, Timer

__all__ = ["Faults", "MemoryBroker", "MemoryLog"]

MIN_BATCH, MAX_BATCH = 2, 1000


@dataclass(slots=True)
class Faults:
    """What goes wrong, as shares from 0.0 (never) to 1.0 (always), drawn from the runtime's random source; change them at any time.

    `lost_acks`: the group has settled, the log never hears of it (seen at the next start or after `ack_wait`).
    `lost_confirmations`: stored, but reported UNAVAILABLE. `lost_publishes`: neither stored nor confirmed. `duplicates`: handed over
    twice. `delay`: seconds until a stored message is confirmed and delivered.
    """

    lost_acks: float = 0.0
    lost_confirmations: float = 0.0
    lost_publishes: float = 0.0
    duplicates: float = 0.0
    delay: float = 0.0


@dataclass(slots=True, eq=False)
class _Record:
    """A stored message; its place in the topic's list is its sequence less one."""

    headers: bytes
    data: bytes
    visible: float


@dataclass(slots=True, eq=False)
class _Group:
    """One group's place in a topic: everything below `floor` is settled, `cursor` is next to be handed over for the first time."""

    floor: int = 0
    cursor: int = 0
    settled: set[int] = field(default_factory=set[int])
    pending: dict[int, tuple[_Member | None, float]] = field(default_factory=dict[int, "tuple[_Member | None, float]"])
    again: deque[int] = field(default_factory=deque[int])
    attempts: dict[int, int] = field(default_factory=dict[int, int])
    members: list[_Member] = field(default_factory=list["_Member"])
    turn: int = 0
    generation: int = 0
    timer: Timer | None = None
    pumping: bool = False

    def rewind(self) -> None:
        """Forget what is in hand: all above the floor comes again, in order (what a consumer reset does on NATS)."""
        self.generation += 1
        self.pumping = False
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.cursor = self.floor
        self.settled.clear()
        self.pending.clear()
        self.again.clear()
        self.attempts.clear()
        for member in self.members:
            member.unsettled = 0

    def settle(self, index: int) -> None:
        """Move the floor over everything that is settled without a gap."""
        if index >= self.floor:
            self.settled.add(index)
        self.attempts.pop(index, None)
        while self.floor in self.settled:
            self.settled.discard(self.floor)
            self.floor += 1


@dataclass(slots=True, eq=False)
class _Topic:
    records: list[_Record] = field(default_factory=list[_Record])
    ids: dict[str, float] = field(default_factory=dict[str, float])
    groups: dict[str, _Group] = field(default_factory=dict[str, _Group])


class MemoryLog:
    """What outlives connections: topics, groups and their places. Share one between brokers to play several processes.

    `max_payload` bounds headers and data together in bytes, `window` is how many seconds an id is remembered, `ack_wait` after
    how many seconds an unsettled delivery is handed over again.
    """

    def __init__(self, *, max_payload: int = 1 << 20, window: float = 120.0, ack_wait: float = 30.0) -> None:
        self.max_payload = max_payload
        self.window = window
        self.ack_wait = ack_wait
        self.up = True
        self.topics: dict[str, _Topic] = {}
        self.brokers: set[MemoryBroker] = set()

    def stop(self) -> None:
        """Go down: publishes fail with UNAVAILABLE, nothing is delivered."""
        self.up = False
        for broker in list(self.brokers):
            broker.fail("The broker went down: send it again with the same id.")

    def start(self) -> None:
        """Come up again: everything unsettled comes again, in order, to the subscriptions that are still open."""
        self.up = True
        for name, topic in self.topics.items():
            for group in topic.groups.values():
                group.rewind()
            self.pump(name)

    def restart(self) -> None:
        """Go down and come up at once."""
        self.stop()
        self.start()

    def append(self, topic: str, headers: bytes, data: bytes) -> None:
        """Store a message as a foreign publisher would, with whatever headers it has."""
        self.topics[topic].records.append(_Record(headers, data, float("-inf")))
        self.pump(topic)

    def pump(self, topic: str) -> None:
        """Wake the groups of a topic."""
        found = self.topics[topic]
        for group in found.groups.values():
            if group.members and not group.pumping:
                group.pumping = True
                asyncio.get_running_loop().call_soon(_pump, found, group)


class _Delivery:
    __slots__ = ("_attempt", "_generation", "_group", "_index", "_member", "_open", "data", "headers", "topic")

    def __init__(self, member: _Member, index: int, record: _Record, attempt: int) -> None:
        self.topic = member.topic
        self.headers = record.headers
        self.data = record.data
        self._member = member
        self._group = member.group
        self._generation = member.group.generation
        self._index = index
        self._attempt = attempt
        self._open = True

    @property
    def attempt(self) -> int:
        """How often the group was handed this message since it last started."""
        return self._attempt

    def ack(self) -> None:
        """Settle it."""
        if self._open:
            self._open = False
            self._member.broker.settle(self._member, self._index, self._generation)

    def nack(self, delay: float = 0.0) -> None:
        """Give it back for later."""
        if self._open:
            self._open = False
            self._member.broker.give_back(self._member, self._index, self._generation, delay)

    def beat(self) -> None:
        """Start the redelivery clock anew."""
        group = self._group
        if self._open and self._generation == group.generation and self._index in group.pending:
            group.pending[self._index] = (self._member, self._member.broker.redelivery())


@dataclass(slots=True, eq=False)
class _Member:
    """One subscription of a group."""

    broker: MemoryBroker
    topic: str
    group: _Group
    receive: Callable[[Delivery], None]
    prefetch: int
    unsettled: int = 0

    async def stop(self) -> None:
        if self in self.group.members:
            self.group.members.remove(self)


class MemoryBroker:
    """A connection to a `MemoryLog`; passes the same contract suite as the real brokers. Nothing survives the process."""

    def __init__(self, *, runtime: Runtime, faults: Faults | None = None, log: MemoryLog | None = None) -> None:
        self.runtime = runtime
        self.clock = runtime.clock
        self.faults = faults or Faults()
        self.log = log or MemoryLog()
        self._inflight: set[asyncio.Future[None]] = set()
        self._members: list[_Member] = []
        self._open = False

    async def open(self) -> None:
        """Connect to the log."""
        if not self.log.up:
            raise Error(Code.UNAVAILABLE, "The memory broker is down: start its log first.")
        self._open = True
        self.log.brokers.add(self)

    async def aclose(self) -> None:
        """Stop taking and fail what is in flight."""
        self._open = False
        self.log.brokers.discard(self)
        for member in self._members:
            await member.stop()
        self._members.clear()
        self.fail("The broker was closed: open it again, then send the message again with the same id.")

    def fail(self, text: str) -> None:
        """Fail what is in flight."""
        for future in list(self._inflight):
            if not future.done():
                future.set_exception(Error(Code.UNAVAILABLE, text))
        self._inflight.clear()

    async def declare(self, topics: Iterable[str], groups: Iterable[tuple[str, str]]) -> list[Drift]:
        """Create what is missing. Nothing here has settings that could drift."""
        self._need()
        for topic in topics:
            self.log.topics.setdefault(topic, _Topic())
        for topic, group in groups:
            self._topic(topic).groups.setdefault(group, _Group())
        return []

    def publish(self, message: Outgoing) -> asyncio.Future[None]:
        """Store one message."""
        reached = self.runtime.reached
        reached("broker.publish.before")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._need()
            topic = self._topic(message.topic)
            self._fits(message)
            self._chance(self.faults.lost_publishes)
            self._store(topic, message)
            self._chance(self.faults.lost_confirmations)
        except Error as error:
            future.set_exception(error)
            return future
        self._inflight.add(future)
        self._later(self.faults.delay, partial(self._confirm, future))
        return future

    def _confirm(self, future: asyncio.Future[None]) -> None:
        self._inflight.discard(future)
        if not future.done():
            self.runtime.reached("broker.publish.after")
            future.set_result(None)

    async def publish_batch(self, messages: Sequence[Outgoing]) -> None:
        """Store all or none."""
        reached = self.runtime.reached
        reached("broker.batch.before")
        self._need()
        if not MIN_BATCH <= len(messages) <= MAX_BATCH or len({message.topic for message in messages}) != 1:
            raise Error(Code.INVALID_ARGUMENT, f"A batch has {len(messages)} messages: send {MIN_BATCH} to {MAX_BATCH} of one topic.")
        topic = self._topic(messages[0].topic)
        for message in messages:
            self._fits(message)
        ids = [message.id for message in messages]
        if len(set(ids)) != len(ids) or any(self._seen(topic, id_) for id_ in ids):
            raise Error(Code.ABORTED, "The batch holds an id that was stored before: send its messages singly.")
        if self.strikes(self.faults.lost_publishes):
            raise Error(Code.ABORTED, "The batch was not confirmed: send its messages singly with the same ids.")
        for message in messages:
            self._store(topic, message)
        if self.strikes(self.faults.lost_confirmations):
            raise Error(Code.ABORTED, "The batch was not confirmed: send its messages singly with the same ids.")
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inflight.add(confirmed)
        self._later(self.faults.delay, partial(self._confirm_batch, confirmed))
        await confirmed

    def _confirm_batch(self, future: asyncio.Future[None]) -> None:
        self._inflight.discard(future)
        if not future.done():
            self.runtime.reached("broker.batch.after")
            future.set_result(None)

    async def subscribe(self, topic: str, group: str, receive: Callable[[Delivery], None], *, prefetch: int) -> Subscription:
        """Deliver from the group's place."""
        self._need()
        found = self._topic(topic).groups.get(group)
        if found is None:
            raise Error(Code.NOT_FOUND, f"Group '{group}' does not exist on '{topic}': declare it first.")
        if prefetch < 1:
            raise SetupError(f"A subscription to '{topic}' cannot prefetch {prefetch}: use 1 or more.")
        found.rewind()
        member = _Member(self, topic, found, receive, prefetch)
        found.members.append(member)
        self._members.append(member)
        self.log.pump(topic)
        return member

    async def attest(self) -> Durability:
        """Say the truth: nothing survives."""
        return Durability("memory", "none", ("The memory broker keeps messages in this process only: use it for tests.",))

    def settle(self, member: _Member, index: int, generation: int) -> None:
        """Take an ack."""
        reached = self.runtime.reached
        reached("broker.ack.before")
        group = member.group
        if self._open and self.log.up and generation == group.generation:
            self._release(member, index)
            if self.strikes(self.faults.lost_acks):
                group.pending[index] = (None, self.redelivery())
            else:
                group.settle(index)
            self.log.pump(member.topic)
        reached("broker.ack.after")

    def give_back(self, member: _Member, index: int, generation: int, delay: float) -> None:
        """Take a nack."""
        reached = self.runtime.reached
        reached("broker.nack.before")
        group = member.group
        if self._open and self.log.up and generation == group.generation:
            self._release(member, index)
            self._later(delay, partial(self._return, member, index, generation))
        reached("broker.nack.after")

    def _release(self, member: _Member, index: int) -> None:
        member.group.pending.pop(index, None)
        member.unsettled = max(0, member.unsettled - 1)

    def _return(self, member: _Member, index: int, generation: int) -> None:
        group = member.group
        if generation == group.generation and index not in group.settled and index >= group.floor:
            group.again.append(index)
            self.log.pump(member.topic)

    def _need(self) -> None:
        if not self._open or not self.log.up:
            raise Error(Code.UNAVAILABLE, "The broker is not connected: send it again when it is back, with the same id.")

    def _topic(self, name: str) -> _Topic:
        topic = self.log.topics.get(name)
        if topic is None:
            raise Error(Code.NOT_FOUND, f"Topic '{name}' does not exist: declare it first.")
        return topic

    def _fits(self, message: Outgoing) -> None:
        size = len(message.headers) + len(message.data)
        if size > self.log.max_payload:
            raise Error(Code.INVALID_ARGUMENT, f"A message of {size} bytes is too large: at most {self.log.max_payload} are accepted.")

    def strikes(self, share: float) -> bool:
        """Draw whether a fault happens now."""
        return share > 0.0 and self.runtime.random.random() < share

    def _chance(self, share: float) -> None:
        if self.strikes(share):
            raise Error(Code.UNAVAILABLE, "The broker did not answer: send the message again with the same id.")

    def _seen(self, topic: _Topic, id_: str) -> bool:
        return topic.ids.get(id_, float("-inf")) + self.log.window > self.clock.monotonic()

    def _store(self, topic: _Topic, message: Outgoing) -> None:
        if self._seen(topic, message.id):
            return
        now = self.clock.monotonic()
        topic.ids[message.id] = now
        sequence = f"ce-sequence: {message.sequence}\r\n".encode() if message.sequence else b""
        topic.records.append(_Record(message.headers + sequence, message.data, now + self.faults.delay))
        self.log.pump(message.topic)

    def redelivery(self) -> float:
        """Return the moment at which an unsettled delivery handed over now comes again."""
        return self.clock.monotonic() + self.log.ack_wait

    def _later(self, delay: float, callback: Callable[[], object]) -> None:
        if delay > 0.0:
            self.clock.call_later(delay, callback)
        else:
            asyncio.get_running_loop().call_soon(callback)


def _pump(topic: _Topic, group: _Group) -> None:
    """Hand over what is due to the members that have room."""
    group.pumping = False
    while (member := _next_member(group)) is not None:
        index = _next_index(topic, group, member)
        if index is None:
            break
        _hand_over(member, index, topic.records[index])
    _watch(group)


def _next_member(group: _Group) -> _Member | None:
    """Return the next member with room, in turn."""
    count = len(group.members)
    for step in range(count):
        member = group.members[(group.turn + step) % count]
        if member.unsettled < member.prefetch and member.broker.log.up:
            group.turn = (group.turn + step + 1) % count
            return member
    return None


def _next_index(topic: _Topic, group: _Group, member: _Member) -> int | None:
    """Return what comes next: what was given back, then what is new."""
    while group.again:
        index = group.again.popleft()
        if index >= group.floor and index not in group.settled:
            return index
    if group.cursor >= len(topic.records):
        return None
    clock = member.broker.clock
    wait = topic.records[group.cursor].visible - clock.monotonic()
    if wait > 0.0:
        clock.call_later(wait, member.broker.log.pump, member.topic)
        return None
    group.cursor += 1
    return group.cursor - 1


def _hand_over(member: _Member, index: int, record: _Record) -> None:
    group = member.group
    attempt = group.attempts[index] = group.attempts.get(index, 0) + 1
    group.pending[index] = (member, member.broker.redelivery())
    member.unsettled += 1
    member.receive(_Delivery(member, index, record, attempt))
    if member.broker.strikes(member.broker.faults.duplicates):
        group.again.append(index)


def _watch(group: _Group) -> None:
    """Keep one timer for the earliest delivery that nobody settles."""
    if group.timer is None and group.pending and group.members:
        clock = group.members[0].broker.clock
        earliest = min(due for _, due in group.pending.values())
        group.timer = clock.call_later(max(0.0, earliest - clock.monotonic()), _expire, group, group.members[0])


def _expire(group: _Group, member: _Member) -> None:
    """Queue again what nobody settled in time."""
    group.timer = None
    now = member.broker.clock.monotonic()
    for index, (holder, due) in list(group.pending.items()):
        if due <= now:
            del group.pending[index]
            group.again.append(index)
            if holder is not None:
                holder.unsettled = max(0, holder.unsettled - 1)
    member.broker.log.pump(member.topic)
    _watch(group)
