"""The lanes that one consumer reads: a subscription for each, and what it has in hand of it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from linkspan.envelope import claim, lane_of, read
from linkspan.errors import Code, Error
from linkspan.incoming.foreign import ForeignReader
from linkspan.incoming.parts import Part
from linkspan.ports import HandedOn, LetterState, Outcome

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping

    from linkspan.context import Home
    from linkspan.incoming.consumer import Consumer
    from linkspan.incoming.work import Work
    from linkspan.lanes import Fence
    from linkspan.letters.deadletter import Holding
    from linkspan.ports import Broker, Delivery, Letter, Subscription, Unit

__all__ = ["GAP", "Hold", "LaneReading", "follows", "gap_error", "guard", "mark_of", "sticky", "waits_for"]

PREFETCH = 64
"""Messages of a lane in hand at most."""
FINISHING = 0.02
"""Seconds between two looks whether what was started of a lane has ended."""
AGAIN = 0.1
"""Seconds until what could not be settled now is asked again."""
GAP = "gap"
"""The fingerprint of letters behind a missing message: their sequence is not marked yet."""


class Hold:
    """A lane that this instance has: while it is `live`, messages are taken; its `fence` goes with every commit."""

    __slots__ = ("fence", "lane", "live", "reading", "subscription")

    def __init__(self, reading: LaneReading, lane: int, fence: Fence) -> None:
        self.reading = reading
        self.lane = lane
        self.fence = fence
        self.live = True
        self.subscription: Subscription | None = None


class LaneDelivery(HandedOn, eq=False, gc=False):
    """A delivery that knows its lane."""

    hold: Hold


class LaneReading:
    """Reads a topic lane by lane. A subject of somebody else's has no lanes: whoever has its own lane reads all of it."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of its consumer, named at its one call
        self,
        consumer: Consumer,
        home: Home,
        holding: Holding,
        broker: Broker | ForeignReader,
        ready: deque[Work],
        busy: dict[str, deque[Work] | None],
        begin: Callable[[Work], Coroutine[Any, Any, None] | None],
    ) -> None:
        self._consumer = consumer
        self._home = home
        self._clock = home.runtime.clock
        self._holding = holding
        self._broker = broker
        self._ready = ready
        self._busy = busy
        self._begin = begin
        self._only = lane_of(consumer.topic) if isinstance(broker, ForeignReader) else None
        self._holds: dict[int, Hold] = {}
        self._share = PREFETCH
        self._ending: set[asyncio.Task[None]] = set()
        self.moved: Callable[[Fence], None] = _stays

    def hold(self, lane: int) -> Hold | None:
        """Return a lane that is read here now."""
        found = self._holds.get(lane)
        return found if found is not None and found.live else None

    def place(self, work: Work) -> bool:
        """Give a message the lane that it came in; False where that is not read here any more."""
        delivery = work.delivery.share.delivery if isinstance(work.delivery, Part) else work.delivery
        work.hold = delivery.hold if isinstance(delivery, LaneDelivery) else self.hold(self.lane_of(work.key))
        return work.hold is not None and work.hold.live

    def adopt(self, work: Work, letter: Letter) -> bool:
        """Take a letter as one of its lane; False where that is not read here any more."""
        work.hold, work.gap = self._holds.get(letter.lane), letter.fingerprint == GAP
        return work.hold is not None

    def let_go(self, work: Work) -> bool:
        """Leave a message of a lane that is not read here any more to whoever has it; False where it is."""
        if work.hold is None or work.hold.live:
            return False
        self._consumer.give_up(work)
        self._consumer.release(work)
        return True

    def lane_of(self, key: str) -> int:
        """Return the lane that a key is read in."""
        return lane_of(key) if self._only is None else self._only

    def fence(self, lane: int) -> Fence | None:
        """Return what a commit for a lane has to carry, None where it is another's."""
        found = self._holds.get(lane)
        return None if found is None else found.fence

    async def gain(self, fences: Mapping[int, Fence]) -> None:
        """Begin with these lanes. Raises `Error`."""
        wanted = [(lane, fence) for lane, fence in fences.items() if self._only in {None, lane}]
        await asyncio.gather(*(self._open(lane, fence) for lane, fence in wanted))

    async def _open(self, lane: int, fence: Fence) -> None:
        there = self._holds.get(lane)
        if there is not None and there.live and there.fence == fence and there.subscription is not None:
            return
        hold = self._holds[lane] = Hold(self, lane, fence)
        take = partial(self._take, hold)
        lanes = None if self._only is not None else (lane,)
        subscription = await self._broker.subscribe(self._consumer.topic, self._home.name, take, prefetch=self._share, lanes=lanes)
        hold.subscription = subscription
        self._consumer.heed(subscription)
        if not hold.live or self._holds.get(lane) is not hold:
            await subscription.stop()

    def bound(self, prefetch: int) -> None:
        """Have at most so many in hand of all lanes, and twice that where all of them are full: few are at a time."""
        self._share = max(1, min(PREFETCH, 2 * prefetch // max(1, len(self._holds))))
        for hold in self._holds.values():
            if hold.live and hold.subscription is not None:
                hold.subscription.bound(self._share)

    def _take(self, hold: Hold, delivery: Delivery) -> None:
        if hold.live:
            self._consumer.receive(LaneDelivery(delivery, delivery.topic, delivery.headers, delivery.data, hold))

    def lose(self, lanes: Collection[int]) -> None:
        """Drop these lanes at once; what is running of them ends with a commit that is refused."""
        holds = [hold for lane in lanes if (hold := self._holds.pop(lane, None)) is not None]
        for hold in holds:
            hold.live = False
            self._drop(hold)
        stopping = asyncio.get_running_loop().create_task(_stop(holds))
        self._ending.add(stopping)
        stopping.add_done_callback(self._ending.discard)

    async def give_up(self, lanes: Iterable[int]) -> None:
        """Take nothing more of these lanes; return when what was started of them has ended."""
        holds = [hold for lane in lanes if (hold := self._holds.get(lane)) is not None]
        for hold in holds:
            hold.live = False
        await _stop(holds)
        for hold in holds:
            self._drop(hold)
        while any(self._under_way(hold) for hold in holds):
            await self._clock.sleep(FINISHING)

    async def stop(self) -> None:
        """Take nothing more at all; the lanes stay ours until what is in hand has ended."""
        await _stop(self._holds.values())

    async def aclose(self) -> None:
        """Wait for subscriptions that are ending."""
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _drop(self, hold: Hold) -> None:
        """Forget what came of a lane and was not started."""
        consumer = self._consumer
        for work in [work for work in self._ready if work.hold is hold]:
            self._ready.remove(work)
            if work.letter is None:
                self._busy.pop(work.key, None)
            else:
                self.let_go(work)
        for work in [work for work in consumer.in_hand if work.hold is hold and not work.started]:
            consumer.in_hand.discard(work)
        for key, behind in self._busy.items():
            if behind and behind[0].hold is hold:
                self._busy[key] = None

    def _under_way(self, hold: Hold) -> bool:
        """Tell whether something of a lane was started and has not ended."""
        return any(work.started and work.hold is hold for work in self._consumer.in_hand)

    # --- messages ---

    async def begin_ahead(self, work: Work) -> None:
        """Begin with a message of a held key: ahead of its letters if these wait for it, else behind them."""
        consumer = self._consumer
        try:
            ahead = await self._holding.fills_gap(consumer.topic, work)
        except Error:
            ahead = None
        if ahead is None:
            self._clock.call_later(AGAIN, consumer.offer, work)
        elif not ahead:
            consumer.retrying.hold(work, LetterState.WAITING, None)
        elif (rest := self._begin(work)) is not None:
            await rest

    def guard(self, unit: Unit, work: Work) -> None:
        """Let a commit come true only while the lane is ours, and in the sequence of its key."""
        assert work.hold is not None  # noqa: S101 - it came by a lane
        unit.fence, unit.mark = work.hold.fence, mark_of(self._home.name, self._consumer.topic, work)
        unit.skip_gap = work.letter is not None and work.letter.state is LetterState.REDRIVE
        work.unit = unit

    def pass_over(self, work: Work) -> bool:
        """Move the mark over a message that is not handled, then finish it; False where there is nothing to move."""
        unit = self._home.unit()
        self.guard(unit, work)
        if unit.mark is None:
            return False
        unit.tag, unit.settled = work, self._passed_over
        assert self._home.store is not None  # noqa: S101 - a consumer has one
        self._home.store.submit(unit)
        return True

    def _passed_over(self, unit: Unit) -> None:
        if unit.outcome is Outcome.FAILED:
            self._clock.call_later(AGAIN, self._consumer.offer, unit.tag)
        elif not self.refused(unit):
            self._consumer.finish(unit.tag)

    def refused(self, unit: Unit) -> bool:
        """Deal with a commit that was refused for its lane or its sequence; False where it was not."""
        work: Work = unit.tag
        if unit.outcome is Outcome.GAP:
            work.gap = True
            self._consumer.retrying.hold(work, LetterState.PARKED, gap_error(work))
        elif unit.outcome is Outcome.MOVED:
            self.gone(work)
        return unit.outcome in {Outcome.GAP, Outcome.MOVED}

    def kept_out(self, work: Work) -> bool:
        """Tell whether what its handler met was no duplicate but the lane's or the sequence's refusal, which is dealt with."""
        if work.unit is None or work.unit.outcome not in {Outcome.GAP, Outcome.MOVED}:
            return False
        work.unit.tag = work
        return self.refused(work.unit)

    def gone(self, work: Work) -> None:
        """Forget a message whose lane is another's by now: that one has it again from the broker, or from the store."""
        assert work.hold is not None  # noqa: S101 - only with a fence
        self.moved(work.hold.fence)
        self._consumer.release(work)


async def _stop(holds: Iterable[Hold]) -> None:
    await asyncio.gather(*(hold.subscription.stop() for hold in holds if hold.subscription is not None))


def guard(unit: Unit, work: Work, letter: Letter) -> None:
    """Store a letter only while its lane is ours; the mark moves with it, unless one before it is missing."""
    work.gap = work.gap or work.ahead  # behind those that waited for it, it must not let them pass
    if work.gap:
        letter.fingerprint = GAP
    if work.hold is not None:
        work.hold.reading.guard(unit, work)
        letter.lane = work.hold.lane
        if work.gap or work.letter is not None:
            unit.mark = None


def sticky(letter: Letter, before: Letter) -> Letter:
    """Keep the sign of a letter whose sequence is not marked yet, whatever else is noted about it."""
    if before.fingerprint == GAP:
        letter.fingerprint = GAP
    return letter


def number_of(letter: Letter) -> int:
    """Return the sequence of a letter's message, 0 where it has none."""
    try:
        return read(letter.headers, letter.data).sequence
    except Error:
        return 0


def waits_for(letter: Letter, work: Work) -> bool:
    """Tell whether a letter is behind a gap that a message belongs to."""
    return letter.fingerprint == GAP and 0 < work.envelope.sequence < number_of(letter)


def follows(letter: Letter, work: Work) -> bool:
    """Tell whether nothing is missing any more between a message and the letter that waited for it."""
    return letter.fingerprint == GAP and number_of(letter) == work.envelope.sequence + 1


def mark_of(service: str, topic: str, work: Work) -> tuple[str, str, str, int] | None:
    """Return what moves the mark of a message's key, None where the message has no number."""
    envelope = work.envelope
    if work.hold is None or not envelope.sequence or (work.letter is not None and not work.gap):
        return None
    return (claim(service, envelope.source, "")[0], topic, envelope.key, envelope.sequence)


def gap_error(work: Work) -> Error:
    """Say which message is missing, and what to do."""
    number = work.envelope.sequence
    text = f"Number {number - 1} of its source and key has not come, this is {number}: its key waits. Look for it where it was published"
    return Error(Code.DATA_LOSS, f"{text}; if it is lost, redrive this one: the gap is then accepted.")


def _stays(_fence: Fence) -> None:
    """Stand in until somebody wants to know of lanes that have moved."""
