"""A broker inside the process, for tests: NATS's semantics, the injected clock, and faults on demand."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from linkspan.brokers.memory_log import Faults, Group, Member, Members, MemoryLog, Record, Topic
from linkspan.envelope import LANES
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Drift, Durability

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from linkspan.ports import Delivery, Outgoing, Runtime, Subscription

__all__ = ["Faults", "MemoryBroker", "MemoryLog"]

MIN_BATCH, MAX_BATCH = 2, 1000


class MemoryBroker:
    """A connection to a `MemoryLog`; passes the same contract suite as the real brokers. Nothing survives the process."""

    def __init__(self, *, runtime: Runtime, faults: Faults | None = None, log: MemoryLog | None = None) -> None:
        self.runtime = runtime
        self.clock = runtime.clock
        self.faults = faults or Faults()
        self.log = log or MemoryLog()
        self._inflight: set[asyncio.Future[None]] = set()
        self._members: list[Member] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = False

    @property
    def gone(self) -> bool:
        """Tell whether its event loop has ended without closing it: the memory broker's picture of a killed process."""
        return self._loop is not None and self._loop.is_closed()

    @property
    def connected(self) -> bool:
        """Tell whether the log is up."""
        return self._open and self.log.up

    async def open(self) -> None:
        """Connect to the log."""
        if not self.log.up:
            raise Error(Code.UNAVAILABLE, "The memory broker is down: start its log first.")
        self._loop = asyncio.get_running_loop()
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

    def cut(self) -> None:
        """Lose the connection for good, as when its process is killed: nobody is told, nothing more is taken or delivered."""
        self._open = False
        self.log.brokers.discard(self)
        for member in self._members:
            if member in member.group.members:
                member.group.members.remove(member)

    def fail(self, text: str) -> None:
        """Fail what is in flight."""
        for future in list(self._inflight):
            if not future.done():
                future.set_exception(Error(Code.UNAVAILABLE, text))
        self._inflight.clear()

    async def declare(self, topics: Iterable[str], groups: Iterable[tuple[str, str]], *, lanes: bool = False) -> list[Drift]:
        """Create what is missing. Nothing here has settings that could drift."""
        self._need()
        for topic in topics:
            self.log.topics.setdefault(topic, Topic())
        for topic, group in groups:
            there = self._topic(topic).groups
            for lane in range(LANES) if lanes else ():
                start = there[group].floor if group in there else 0
                there.setdefault(f"{group}={lane}", Group(start, start, lane=lane))
            if not lanes:
                there.setdefault(group, Group())
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

    async def subscribe(
        self, topic: str, group: str, receive: Callable[[Delivery], None], *, prefetch: int, lanes: Collection[int] | None = None
    ) -> Subscription:
        """Deliver from the group's place, or from the places of some of its lanes."""
        self._need()
        if prefetch < 1:
            raise SetupError(f"A subscription to '{topic}' cannot prefetch {prefetch}: use 1 or more.")
        names = [group] if lanes is None else [f"{group}={lane}" for lane in lanes]
        groups = [self._topic(topic).groups.get(name) for name in names]
        members: list[Member] = []
        for found in groups:
            if found is None:
                raise Error(Code.NOT_FOUND, f"Group '{group}' does not exist on '{topic}': declare it first.")
            found.rewind()
            member = Member(self, topic, found, receive, prefetch)
            found.members.append(member)
            members.append(member)
        self._members += members
        self.log.pump(topic)
        return members[0] if lanes is None else Members(members)

    async def attest(self, topics: Iterable[str] = (), groups: Iterable[tuple[str, str]] = ()) -> Durability:  # noqa: ARG002 - nothing is kept
        """Say the truth: nothing survives."""
        return Durability("memory", "none", ("The memory broker keeps messages in this process only: use it for tests.",))

    def settle(self, member: Member, index: int, generation: int) -> None:
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

    def give_back(self, member: Member, index: int, generation: int, delay: float) -> None:
        """Take a nack."""
        reached = self.runtime.reached
        reached("broker.nack.before")
        group = member.group
        if self._open and self.log.up and generation == group.generation:
            self._release(member, index)
            self._later(delay, partial(self._return, member, index, generation))
        reached("broker.nack.after")

    def _release(self, member: Member, index: int) -> None:
        member.group.pending.pop(index, None)
        member.unsettled = max(0, member.unsettled - 1)

    def _return(self, member: Member, index: int, generation: int) -> None:
        group = member.group
        if generation == group.generation and index not in group.settled and index >= group.floor:
            group.again.append(index)
            self.log.pump(member.topic)

    def _need(self) -> None:
        if not self._open or not self.log.up:
            raise Error(Code.UNAVAILABLE, "The broker is not connected: send it again when it is back, with the same id.")

    def _topic(self, name: str) -> Topic:
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

    def _seen(self, topic: Topic, id_: str) -> bool:
        return topic.ids.get(id_, float("-inf")) + self.log.window > self.clock.monotonic()

    def _store(self, topic: Topic, message: Outgoing) -> None:
        if self._seen(topic, message.id):
            return
        now = self.clock.monotonic()
        topic.ids[message.id] = now
        sequence = f"ce-sequence: {message.sequence}\r\n".encode() if message.sequence else b""
        topic.records.append(Record(message.headers + sequence, message.data, now + self.faults.delay, message.lane))
        self.log.pump(message.topic)

    def redelivery(self) -> float:
        """Return the moment at which an unsettled delivery handed over now comes again."""
        return self.clock.monotonic() + self.log.ack_wait

    def _later(self, delay: float, callback: Callable[[], object]) -> None:
        if delay > 0.0:
            self.clock.call_later(delay, callback)
        else:
            asyncio.get_running_loop().call_soon(callback)
