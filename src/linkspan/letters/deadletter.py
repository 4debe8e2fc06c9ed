"""Holding: messages that could not be handled, kept in the store in their key's order until they can.

A failing message is parked with a due time and acknowledged; later messages of its key wait behind it in the same table,
other keys flow. After the last parked try, or at once when trying cannot help, it is a dead letter: it and what waits behind
it stay until a person redrives or discards it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from linkspan.envelope import LANES
from linkspan.errors import Error
from linkspan.incoming.lane_reading import follows, guard, sticky, waits_for
from linkspan.letters.desk import attempted, forgotten, stack_of
from linkspan.letters.held_key import HeldKey
from linkspan.letters.lookout import Lookout, may_run
from linkspan.letters.parking import after_failure, blamed, buried, ended_process, new_letter, spent, suspected
from linkspan.letters.redrive import failed_again
from linkspan.letters.redriving import Redriver
from linkspan.letters.room import Room
from linkspan.ports import Letter, LetterState, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from linkspan.context import Home
    from linkspan.incoming.consumer import Consumer
    from linkspan.incoming.work import Work
    from linkspan.letters.announcing import Announcer
    from linkspan.letters.redrive import Redrive
    from linkspan.letters.turns import Turns
    from linkspan.limits import Limits
    from linkspan.ports import Store, Timer, Unit, Value

__all__ = ["LETTER_EVENTS", "Holding"]

_log = logging.getLogger("linkspan.deadletter")

LETTER_EVENTS = "linkspan.deadletter.v1"
"""The package of the events that a service publishes about its letters where it says `letter_events=True`."""
TICK = 1.0
"""Seconds between two looks for letters that are due or were redriven."""
AT_ONCE = 100
"""Keys whose letters are taken up per look."""
STORE_RETRY = 0.5
"""Seconds until a letter is offered again to a store that could not take it."""


class Holding:
    """Holds one service's failing messages."""

    def __init__(self, home: Home, store: Store, limits: Limits, turns: Turns, announcer: Announcer | None = None) -> None:
        self._home = home
        self._store = store
        self._limits = limits
        self._turns = turns
        self._wary = False
        self._clock = home.runtime.clock
        self._consumers: dict[str, Consumer] = {}
        self._keys: dict[tuple[str, str], HeldKey] = {}
        self._again: dict[tuple[str, str], None] = {}  # keys to go on with at the next look: nothing else would call them up
        self._lanes: set[int] = set()
        self._timer: Timer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._room = Room(home.name, store, limits)
        self._lookout = Lookout(home.name, store, self._clock)
        self._announcer = announcer
        self._redriver = Redriver(home.name, home.runtime, store, self)
        self._redriving: asyncio.Task[None] | None = None

    def add(self, consumer: Consumer) -> None:
        """Know the consumer that handles a topic's letters."""
        self._consumers[consumer.topic] = consumer

    async def start(self) -> None:
        """Learn which keys are held, where lanes do not tell it later; must end before the first delivery."""
        if not self._store.shared:
            await self.gain(None)
        self._wary = self._store.crashed
        await self._room.start()
        await self._lookout.start()
        self._timer = self._clock.call_later(0.0, self._tick)
        self._redriving = asyncio.get_running_loop().create_task(self._redriver.run())

    async def aclose(self) -> None:
        """Stop looking; everything held is in the store."""
        self._closed = True
        if self._redriving is not None:
            self._redriving.cancel()
            await asyncio.gather(self._redriving, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def gain(self, lanes: Collection[int] | None) -> None:
        """Learn which keys of these lanes are held, before their first delivery. Raises `Error`."""
        for place, key in await self._store.held_keys(lanes):
            consumer = self._consumers.get(place.removeprefix(self._place("")))
            if consumer is not None and place.startswith(self._place("")):
                lane = 0 if consumer.lanes is None else consumer.lanes.lane_of(key)
                self._keys.setdefault((consumer.topic, key), HeldKey(lane=lane))
        self._lanes.update(lanes or ())
        self._lookout.all = True  # their last owner may have freed a key without calling up its next letter

    def beware(self) -> None:
        """Handle held messages as after a crash, until those that may have caused it have been seen."""
        self._wary = self._lookout.all = True

    def lose(self, lanes: Collection[int]) -> None:
        """Forget what is held of these lanes: it is another's."""
        self._lanes.difference_update(lanes)
        self._keys = {place: key for place, key in self._keys.items() if key.lane not in lanes}

    def holds(self, topic: str, key: str) -> bool:
        """Tell whether messages of this key must wait."""
        return (topic, key) in self._keys

    @property
    def holds_any(self) -> bool:
        """Tell whether any key is held."""
        return bool(self._keys)

    @property
    def share(self) -> float:
        """Return which part of the service's keys is ours."""
        return len(self._lanes) / LANES if self._store.shared else 1.0

    @property
    def busy(self) -> bool:
        """Tell whether letters are being looked for, stored or handled right now."""
        return bool(self._tasks) or self._redriver.active is not None or any(key.running or key.pending for key in self._keys.values())

    def look(self) -> None:
        """Look for due letters now instead of at the next tick."""
        if self._keys and not self._closed and self._timer is not None:
            self._timer.cancel()
            self._tick()

    def _place(self, topic: str) -> str:
        """Return a topic's name in the table: services that share a store hold their letters apart."""
        return f"{self._home.name}:{topic}"

    def _topic_of(self, letter: Letter) -> str:
        """Return the topic of a letter of this service."""
        return letter.topic.removeprefix(self._place(""))

    # --- in ---

    def hold(self, consumer: Consumer, work: Work, state: LetterState, error: Error | None) -> None:
        """Store a message as a letter, or a letter's new state, and tell the consumer when that is committed."""
        if work.letter is None and not self._room.has(consumer.topic, work.key):
            consumer.retrying.not_held(work, state, error, TICK)
            return
        unit, limits, now = self._home.unit(), consumer.limits(work.envelope.type), self._clock.now()
        if work.letter is None:
            letter = new_letter(self._place(consumer.topic), work, state, error, limits=limits, now=now)
            guard(unit, work, letter)
            self._store.add_letter(unit, letter)
            self._room.added(consumer.topic, work.key)
            state = letter.state
        else:
            letter = after_failure(work.letter, work.tries, state, error, limits=limits, now=now)
            guard(unit, work, letter)
            self._store.update_letter(unit, letter)
            state = letter.state
            if work.letter.state is LetterState.REDRIVE:
                unit.statements.append(failed_again(letter.position))
        if self._announcer is not None:
            self._announcer.held(unit, letter, work.letter)
        if error is not None:
            unit.statements += attempted(letter, stack_of(error))
        first = (consumer.topic, work.key) not in self._keys
        key = self._keys.setdefault((consumer.topic, work.key), HeldKey(lane=letter.lane))
        key.version += 1
        key.pending += 1
        key.gap = min(key.gap or work.envelope.sequence, work.envelope.sequence) if work.gap else key.gap
        unit.tag = (consumer, work, state, error)
        unit.settled = partial(self._held, key, first=first)
        self._home.runtime.reached("letter.hold.before")
        self._store.submit(unit)

    def _held(self, key: HeldKey, unit: Unit, *, first: bool) -> None:
        consumer, work, state, error = unit.tag
        if unit.outcome is not Outcome.COMMITTED and work.letter is None:
            self._room.left(consumer.topic, work.key)
        key.pending -= 1
        key.version += 1  # a look that began before this commit did not see the letter and must not free the key
        if unit.outcome is Outcome.FAILED:
            code = unit.error.code.value if unit.error else "unknown"
            _log.error("A letter could not be stored; its message stays in hand.", extra={"service": self._home.name, "code": code})
            consumer.retrying.not_held(work, state, error, STORE_RETRY)
            return
        if unit.outcome is Outcome.GAP:
            work.gap = True
            self.hold(consumer, work, state, error)
            return
        if unit.outcome is Outcome.DUPLICATE:
            consumer.finish(work, duplicate=True)
            return
        if unit.outcome is Outcome.MOVED and work.hold is not None:
            work.hold.reading.gone(work)
            return
        self._home.runtime.reached("letter.hold.after")
        self._committed(unit)
        key.stuck = work.letter is not None
        if state is not LetterState.WAITING:
            fields = {"service": self._home.name, "topic": consumer.topic, "id": work.envelope.id, "type": work.envelope.type}
            _log.warning("A message is held.", extra={**fields, "state": state.value, "code": error.code.value if error else ""})
        consumer.retrying.held(work, state)
        if work.letter is None and (consumer.careful or (first and state is LetterState.WAITING)) and not key.running:
            self._spawn(self._advance(consumer.topic, work.key, key))

    # --- out ---

    def leave(self, unit: Unit, letter: Letter) -> None:
        """Remove a letter, with all that was noted about it, in the unit of its message's effect."""
        self._store.remove_letter(unit, letter.position)
        unit.statements.append(forgotten(letter))
        if self._announcer is not None:
            self._announcer.recovered(unit, letter)

    def _committed(self, unit: Unit) -> None:
        """Let the relay take what was announced with a unit."""
        if self._announcer is not None and unit.outcome is Outcome.COMMITTED:
            self._announcer.committed(unit)

    def drop(self, consumer: Consumer, work: Work, letter: Letter, *, expired: bool = False) -> None:
        """Remove a letter whose message turned out to be handled already, or to be past its expiry, which is audited."""
        unit = self._home.unit()
        unit.tag = (consumer, work)
        unit.settled = self._dropped
        unit.fence = work.hold.fence if work.hold is not None else None
        if expired:
            self._store.expire_letter(unit, letter.position, who=self._home.name, at=self._clock.now())
        self.leave(unit, letter)
        self._store.submit(unit)

    def _dropped(self, unit: Unit) -> None:
        consumer, work = unit.tag
        self._committed(unit)
        key = self._keys.get((consumer.topic, work.key))
        if key is not None and unit.outcome is Outcome.FAILED:
            key.stuck = True
            self._again[consumer.topic, work.key] = None
        consumer.release(work)

    def _tick(self) -> None:
        if not self._keys:
            self._next_tick()
            return
        self._timer = None  # until this look has ended
        self._spawn(self._look())

    def _next_tick(self) -> None:
        if not self._closed:
            self._timer = self._clock.call_later(TICK, self._tick)

    async def _look(self) -> None:
        """Take up letters that are due or redriven, and free keys whose last letter another process discarded."""
        try:
            await self._room.look()
            self._again.update(dict.fromkeys(await self._lookout.discarded()))
            for place in list(self._again)[:AT_ONCE]:
                del self._again[place]
                key = self._keys.get(place)
                if key is not None and not key.running:
                    self._spawn(self._advance(*place, key))
            if self._lookout.at_all():
                began = self._clock.monotonic()
                await self._look_at_all()
                self._lookout.looked(began)
            else:
                await self._look_at_due()
        except Error as error:
            _log.warning("Looking for due letters failed; will try again.", extra={"service": self._home.name, "code": error.code.value})
        self._next_tick()

    def _looked_after(self) -> frozenset[int] | None:
        """Return the lanes whose letters are ours, None for all."""
        return frozenset(self._lanes) if self._store.shared else None

    async def _look_at_due(self) -> None:
        """Take up what is due or redriven: as much work as there is of that, however much is held."""
        for place, position in await self._lookout.due(AT_ONCE, self._looked_after()):
            key = self._keys.get(place)
            if key is None or key.running or key.advancing:
                continue
            version, letter = key.version, await self._store.letter(position)
            if letter is not None and self._keys.get(place) is key and key.version == version and may_run(letter, self._clock.now()):
                self._start(letter)

    async def _look_at_all(self) -> None:
        """Take up whatever may run, and set keys free that have no letters any more."""
        self._lookout.all = False
        versions = {place: key.version for place, key in self._keys.items()}
        lanes = self._looked_after()
        there = await self._store.held_keys(lanes)
        for (topic, name), version in versions.items():
            key = self._keys.get((topic, name))
            if key and (self._place(topic), name) not in there and key.version == version and not key.pending and not key.running:
                del self._keys[topic, name]
        heads = await self._store.heads(self._clock.now(), AT_ONCE, lanes)
        for letter in heads:
            place = (self._topic_of(letter), letter.key)
            key = self._keys.get(place)
            if key is None:
                self._lookout.all |= place[0] in self._consumers  # not where it is another service's, or nobody's any more
            elif key.version == versions.get(place) and not key.advancing:
                self._start(letter)
            else:
                self._again[place] = None
        self._lookout.all = self._lookout.all or len(heads) == AT_ONCE
        self._wary = self._wary and len(heads) == AT_ONCE  # all that was being handled when the last process died has been seen

    def redrive(self, letter: Letter, statements: Sequence[tuple[str, Sequence[Value]]]) -> bool:
        """Run a dead letter for a redrive of many; the statements commit with its count. False where its key is not ours or busy."""
        key = self._keys.get((self._topic_of(letter), letter.key))
        if key is None or key.running or letter.state is not LetterState.DEAD:
            return False
        key.paced = True
        return self._start(replace(letter, state=LetterState.REDRIVE), statements)

    def stopped(self, redrive: Redrive, reason: str) -> None:
        """Tell those who alert that a redrive stopped by itself."""
        if self._announcer is not None:
            unit = self._home.unit()
            self._announcer.stopped(unit, redrive, reason)
            unit.settled = self._committed
            self._store.submit(unit)

    def _start(self, letter: Letter, statements: Sequence[tuple[str, Sequence[Value]]] = ()) -> bool:
        topic = self._topic_of(letter)
        consumer = self._consumers.get(topic)
        if consumer is None or not letter.topic.startswith(self._place("")):
            return False
        if consumer.lanes is not None and consumer.lanes.hold(letter.lane) is None:
            return False
        key = self._keys.setdefault((topic, letter.key), HeldKey(lane=letter.lane))
        if key.running or self._closed:
            return False
        if not consumer.circuit.takes_letter():
            self._again[topic, letter.key] = None
            return False
        key.running, key.stuck = True, False
        limits = consumer.limits(letter.type)
        if key.paced:
            self._redriver.begin(letter.position)
        self._home.runtime.reached("letter.run.before")
        if letter.state is LetterState.PARKED and spent(letter, limits):
            self._redriver.end(letter.position, handled=False)
            dead = sticky(buried(letter, self._clock.now()), letter)
            noted = attempted(dead, "") if ended_process(dead) else []
            self._change(dead, partial(self._buried, key), [*noted, failed_again(letter.position)])
        else:
            wary = self._wary or consumer.careful or letter.state is not LetterState.WAITING
            run = partial(self._run, consumer, letter, key, wary=wary, more=statements)
            self._turns.enter(run, alone=ended_process(letter))
        return True

    def _run(self, consumer: Consumer, letter: Letter, key: HeldKey, *, wary: bool, more: Sequence[tuple[str, Sequence[Value]]]) -> None:
        """Handle a letter whose turn it is.

        What will be true if it ends its process is stored before: among others a suspicion, alone a whole round of its tries.
        """
        now, limits = self._clock.now(), consumer.limits(letter.type)
        noted = partial(self._noted, consumer, letter, key)
        if self._closed:
            key.running = False
            self._turns.leave()
        elif ended_process(letter):
            self._change(sticky(blamed(letter, limits=limits, now=now), letter), noted, [*more, *attempted(letter, "")])
        elif wary:
            self._change(sticky(suspected(letter, now), letter), noted, more)
        else:
            consumer.run_letter(letter, partial(self._ran, consumer.topic, key))

    def _change(self, letter: Letter, settled: Callable[[Unit], None], more: Sequence[tuple[str, Sequence[Value]]] = ()) -> None:
        unit = self._home.unit()
        unit.settled = settled
        unit.statements += more
        consumer = self._consumers[self._topic_of(letter)]
        if consumer.lanes is not None:
            unit.fence = consumer.lanes.fence(letter.lane)
            if unit.fence is None:  # its lane is another's by now, and so is the letter
                unit.outcome = Outcome.MOVED
                settled(unit)
                return
        self._store.update_letter(unit, letter)
        if self._announcer is not None and letter.state is LetterState.DEAD:
            self._announcer.held(unit, letter, letter)
        self._home.runtime.reached("letter.count.before")
        self._store.submit(unit)

    def _noted(self, consumer: Consumer, letter: Letter, key: HeldKey, unit: Unit) -> None:
        self._home.runtime.reached("letter.count.after")
        if unit.outcome is not Outcome.COMMITTED:
            self._again[self._topic_of(letter), letter.key] = None
            key.running = False
            self._turns.leave()
            self._redriver.end(letter.position, handled=False)
        else:
            consumer.run_letter(letter, partial(self._ran, consumer.topic, key))

    def _buried(self, key: HeldKey, unit: Unit) -> None:
        self._committed(unit)
        key.running = False
        key.version += 1

    def put_back(self, letter: Letter, settled: Callable[[Unit], None] | None = None) -> None:
        """Store a letter as it was before a run that will not take place."""
        self._change(letter, settled or (lambda _unit: None))

    # --- missing messages ---

    async def fills_gap(self, topic: str, work: Work) -> bool | None:
        """Tell whether a message is one that its key's letters wait for: then none of them runs until `came`.

        None where that is to be asked again later: earlier letters of its key have not ended yet. Raises `Error`.
        """
        key = self._keys.get((topic, work.key))
        letter = await self._store.next_letter(self._place(topic), work.key) if key is not None else None
        late = letter is not None and waits_for(letter, work)
        if key is not None and letter is not None and not late and not 0 < work.envelope.sequence < key.gap:
            return False
        if key is not None and (key.pending or key.running or not (late or letter is None)):
            return None
        if key is not None and letter is not None:
            key.running = True
        elif key is not None:
            self._keys.pop((topic, work.key), None)
        work.ahead = True
        return True

    def came(self, topic: str, work: Work) -> None:
        """Go on with the letters of a key, the missing message having its end."""
        key = self._keys.get((topic, work.key))
        if key is not None and not self._closed:
            key.running = False
            key.version += 1
            self._spawn(self._go_on(topic, work, key))

    async def _go_on(self, topic: str, work: Work, key: HeldKey) -> None:
        with suppress(Error):  # the next look finds it
            letter = await self._store.next_letter(self._place(topic), work.key)
            if letter is not None and letter.state is LetterState.PARKED and not key.running and follows(letter, work):
                self._start(letter)

    def _ran(self, topic: str, key: HeldKey, work: Work) -> None:
        key.running = False
        key.version += 1
        key.runs += 1
        self._turns.leave()
        if not key.stuck:
            self._room.left(topic, work.key)
        if work.letter is not None:
            self._redriver.end(work.letter.position, handled=not key.stuck)
        self._home.runtime.reached("letter.run.after")
        if not key.stuck and not self._closed:
            self._spawn(self._advance(topic, work.key, key))

    async def _advance(self, topic: str, name: str, key: HeldKey) -> None:
        """Go on with the key's next letter, or set the key free when there is none."""
        while not key.running:
            version, runs = key.version, key.runs
            try:
                letter = await self._store.next_letter(self._place(topic), name)
            except Error:
                self._again[topic, name] = None
                return
            if letter is None:
                if key.pending == 0 and key.version == version:
                    self._keys.pop((topic, name), None)
                    return
                await self._clock.sleep(0.01)
                continue
            if key.runs != runs:
                continue
            due = letter.state is LetterState.PARKED and letter.due <= self._clock.now()
            if letter.state in {LetterState.WAITING, LetterState.REDRIVE} or due:
                await key.turn(self._redriver.turn)
                if key.runs != runs:
                    continue
                self._start(letter)
            return

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]  # a coroutine, typed loosely for both callers
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
