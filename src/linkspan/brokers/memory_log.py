"""What a memory broker's connections share: topics, groups and their places, as JetStream keeps them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from linkspan.ports import Clock, Delivery, Timer

__all__ = ["Faults", "Group", "Member", "Members", "MemoryLog", "Record", "Topic"]


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


class Connection(Protocol):
    """What the log sees of a `MemoryBroker`."""

    clock: Clock
    faults: Faults
    log: MemoryLog

    @property
    def gone(self) -> bool:
        """Tell whether its event loop has ended without closing it."""
        ...

    def fail(self, text: str) -> None:
        """Fail what is in flight."""
        ...

    def strikes(self, share: float) -> bool:
        """Draw whether a fault happens now."""
        ...

    def redelivery(self) -> float:
        """Return the moment at which a delivery handed over now comes again."""
        ...

    def settle(self, member: Member, index: int, generation: int) -> None:
        """Take an ack."""
        ...

    def give_back(self, member: Member, index: int, generation: int, delay: float) -> None:
        """Take a nack."""
        ...


@dataclass(slots=True, eq=False)
class Record:
    """A stored message; its place in the topic's list is its sequence less one. `lane` is None where its publisher knows of none."""

    headers: bytes
    data: bytes
    visible: float
    lane: int | None = None


@dataclass(slots=True, eq=False)
class Group:
    """One group's place in a topic, or in one lane of it.

    Everything below `floor` is settled, `cursor` is next to be handed over for the first time.
    """

    floor: int = 0
    cursor: int = 0
    settled: set[int] = field(default_factory=set[int])
    pending: dict[int, tuple[Member | None, float]] = field(default_factory=dict[int, "tuple[Member | None, float]"])
    again: deque[int] = field(default_factory=deque[int])
    attempts: dict[int, int] = field(default_factory=dict[int, int])
    members: list[Member] = field(default_factory=list["Member"])
    turn: int = 0
    generation: int = 0
    timer: Timer | None = None
    pumping: bool = False
    lane: int | None = None

    def rewind(self) -> None:
        """Forget what is in hand: all above the floor comes again, in order (what a consumer reset does on NATS)."""
        self.generation += 1
        self.members = [member for member in self.members if not member.broker.gone]
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
class Topic:
    """Stored messages, the ids of the last while, and the groups."""

    records: list[Record] = field(default_factory=list[Record])
    ids: dict[str, float] = field(default_factory=dict[str, float])
    groups: dict[str, Group] = field(default_factory=dict[str, Group])


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
        self.topics: dict[str, Topic] = {}
        self.brokers: set[Connection] = set()
        self.soon: Callable[..., object] | None = None  # `call_soon` of a loop that outlives the connections', where those have several

    def stop(self) -> None:
        """Go down: publishes fail with UNAVAILABLE, nothing is delivered."""
        self.up = False
        self.brokers = {broker for broker in self.brokers if not broker.gone}
        for broker in self.brokers:
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
        self.topics[topic].records.append(Record(headers, data, float("-inf")))
        self.pump(topic)

    def pump(self, topic: str) -> None:
        """Wake the groups of a topic."""
        found = self.topics[topic]
        for group in found.groups.values():
            if group.members and not group.pumping:
                group.pumping = True
                (self.soon or asyncio.get_running_loop().call_soon)(_pump, found, group)


class MemoryDelivery:
    """A message in hand."""

    __slots__ = ("_attempt", "_generation", "_group", "_index", "_member", "_open", "data", "headers", "topic")

    def __init__(self, member: Member, index: int, record: Record, attempt: int) -> None:
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
class Member:
    """One subscription of a group."""

    broker: Connection
    topic: str
    group: Group
    receive: Callable[[Delivery], None]
    prefetch: int
    unsettled: int = 0

    @property
    def patience(self) -> float:
        """Return the time until redelivery."""
        return self.broker.log.ack_wait

    def bound(self, prefetch: int) -> None:
        """Hold so many at most."""
        self.prefetch = prefetch
        self.broker.log.pump(self.topic)

    async def stop(self) -> None:
        """Take no more."""
        if self in self.group.members:
            self.group.members.remove(self)


class Members:
    """The subscriptions of several lanes, as one."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members

    @property
    def patience(self) -> float:
        """Return the time until redelivery."""
        return min((member.patience for member in self._members), default=float("inf"))

    def bound(self, prefetch: int) -> None:
        """Hold so many of each at most."""
        for member in self._members:
            member.bound(prefetch)

    async def stop(self) -> None:
        """Take no more."""
        for member in self._members:
            await member.stop()


def _pump(topic: Topic, group: Group) -> None:
    """Hand over what is due to the members that have room."""
    group.pumping = False
    while (member := _next_member(group)) is not None:
        index = _next_index(topic, group, member)
        if index is None:
            break
        _hand_over(member, index, topic.records[index])
    _watch(group)


def _next_member(group: Group) -> Member | None:
    """Return the next member with room, in turn."""
    count = len(group.members)
    for step in range(count):
        member = group.members[(group.turn + step) % count]
        if member.unsettled < member.prefetch and member.broker.log.up:
            group.turn = (group.turn + step + 1) % count
            return member
    return None


def _next_index(topic: Topic, group: Group, member: Member) -> int | None:
    """Return what comes next: what was given back, then what is new."""
    while group.again:
        index = group.again.popleft()
        if index >= group.floor and index not in group.settled:
            return index
    while group.lane is not None and group.cursor < len(topic.records) and topic.records[group.cursor].lane != group.lane:
        group.settle(group.cursor)  # another lane's
        group.cursor += 1
    if group.cursor >= len(topic.records):
        return None
    clock = member.broker.clock
    wait = topic.records[group.cursor].visible - clock.monotonic()
    if wait > 0.0:
        clock.call_later(wait, member.broker.log.pump, member.topic)
        return None
    group.cursor += 1
    return group.cursor - 1


def _hand_over(member: Member, index: int, record: Record) -> None:
    group = member.group
    attempt = group.attempts[index] = group.attempts.get(index, 0) + 1
    group.pending[index] = (member, member.broker.redelivery())
    member.unsettled += 1
    member.receive(MemoryDelivery(member, index, record, attempt))
    if member.broker.strikes(member.broker.faults.duplicates):
        group.again.append(index)


def _watch(group: Group) -> None:
    """Keep one timer for the earliest delivery that nobody settles."""
    if group.timer is None and group.pending and group.members:
        clock = group.members[0].broker.clock
        earliest = min(due for _, due in group.pending.values())
        group.timer = clock.call_later(max(0.0, earliest - clock.monotonic()), _expire, group, group.members[0])


def _expire(group: Group, member: Member) -> None:
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
