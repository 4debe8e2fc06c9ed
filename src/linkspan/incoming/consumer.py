"""The consumer: deliveries of one topic, through the handlers of one service, to acknowledged effects.

One message of a key is under way at a time, from its start to its commit; other keys run beside it. Warm workers run the
handlers, each in a context of its own: no task, timer or thread hop per message. A handler that only records statements
ends without waiting for the disk: its unit joins the group commit, and the acknowledgement follows from there.

Nothing is given back to the broker while the process lives, because a redelivery would overtake later messages of its key:
what fails is tried again here, then held in the store (`deadletter`), and what the store cannot take stays in hand.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

from linkspan import envelope as envelopes
from linkspan.context import Context, Duplicate
from linkspan.envelope import PROTOBUF, claim
from linkspan.errors import Code, Error
from linkspan.incoming.breaker import Circuit
from linkspan.incoming.lane_reading import LaneReading
from linkspan.incoming.largework import begin_large
from linkspan.incoming.pace import Pace, Room
from linkspan.incoming.parts import Parts, holds_many, work_of
from linkspan.incoming.retrying import Retrying
from linkspan.incoming.work import (
    Binding,
    Counts,
    Work,
    context_of,
    handler_error,
    letter_work,
    resumed,
    rolled_back,
    took_too_long,
)
from linkspan.incoming.workers import Workers
from linkspan.ports import LetterState, Outcome
from linkspan.when import is_over

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from linkspan.context import Home, Transaction
    from linkspan.incoming.breaker import Breaker
    from linkspan.incoming.foreign import ForeignReader
    from linkspan.letters.deadletter import Holding
    from linkspan.limits import Limits
    from linkspan.outgoing.outbox import Relay
    from linkspan.ports import Broker, Delivery, Letter, Subscription, Timer, Unit

__all__ = ["Consumer"]

_log = logging.getLogger("linkspan.consumer")

SETTLED_IN = 2.0
"""Seconds after which a consumer with nothing in hand has seen all that was in hand at a crash."""
BEAT = 10.0
"""Seconds between two signs of life for messages in hand: a third of the broker's patience."""


class Consumer:
    """Consumes one topic for one service."""

    def __init__(  # noqa: PLR0913 - the parts it joins, named at its one call
        self,
        home: Home,
        topic: str,
        bindings: Mapping[str, Binding],
        *,
        broker: Broker | ForeignReader,
        relay: Relay,
        holding: Holding,
        limits: Limits,
        strict: tuple[str, ...],
        breaker: Breaker | None,
        prefetch: int | None,
    ) -> None:
        self._home = home
        self.service = home.name
        self._clock = home.runtime.clock
        self._reached = home.runtime.reached
        self.topic = topic
        self._bindings = bindings
        self._broker = broker
        self._relay = relay
        self._holding = holding
        self.retrying = Retrying(self, home, holding)
        self.circuit = Circuit(breaker, self, holding, home.runtime)
        self.workers = Workers(self, self._begin)
        self._ready, self._idle = self.workers.ready, self.workers.idle
        assert home.store is not None  # noqa: S101 - a running service has one
        self._store = home.store
        self._limits = limits
        self._look = min((BEAT, *(binding.limits.timeout / 4 for binding in bindings.values())))
        self._count = max((limits.concurrency, *(binding.limits.concurrency for binding in bindings.values())))
        bounds = {name: binding.limits.concurrency for name, binding in bindings.items()}
        self._rooms = {name: Room(most, self.offer) for name, most in bounds.items() if most < self._count}
        self._pace = Pace(home.runtime.clock, self._count, prefetch, self._bound)
        self._strict = strict
        self._busy: dict[str, deque[Work] | None] = {}
        self.in_hand: set[Work] = set()
        self._parts = Parts(topic, self.in_hand, self._take, home.runtime.clock)
        self._packed = self._parts.packed
        self._subscription: Subscription | None = None
        self._beat: Timer | None = None
        self.stopping = False
        self._drained: asyncio.Event | None = None
        self._careful = 0
        self._careful_until = 0.0
        self.counts = Counts()
        self.lanes = LaneReading(self, home, holding, broker, self._ready, self._busy, self._begin) if self._store.shared else None

    async def start(self) -> None:
        """Start the workers, then take deliveries; where the store is shared these come with the lanes."""
        self.workers.start(self._count)
        self._beat = self._clock.call_later(self._look, self._beats)
        if self._store.crashed:
            self.beware()
        if self.lanes is None:
            self._subscription = await self._broker.subscribe(self.topic, self._home.name, self.receive, prefetch=self._pace.prefetch)
            self.heed(self._subscription)

    def heed(self, subscription: Subscription) -> None:
        """Show signs of life as often as the broker wants them, from the first on."""
        self._look = min(self._look, subscription.patience / 3)
        if self._beat is not None:
            self._beat.cancel()
        self._beat = self._clock.call_later(self._look, self._beats)

    def _bound(self, prefetch: int) -> None:
        """Take so many at most; while the breaker is open, no more than it takes to find out: twice as many after each try in vain."""
        wanted = min(self._pace.most, self._count << min(self.circuit.in_vain + 1, 11)) if self.circuit.open else prefetch
        if self._subscription is not None:
            self._subscription.bound(wanted)
        if self.lanes is not None:
            self.lanes.bound(wanted)

    def beware(self) -> None:
        """Be careful for as many messages as can have been in hand when a process ended."""
        self._careful, self._careful_until = self._pace.most, self._clock.monotonic() + SETTLED_IN

    @property
    def careful(self) -> bool:
        """Tell whether a message in hand may be the one that ended a process: each is stored first, and its run counted."""
        return self._careful > 0

    async def drain(self) -> None:
        """Take no more and finish what has been started; the rest stays with the broker."""
        self.stopping = True
        if self._subscription is not None:
            await self._subscription.stop()
        if self.lanes is not None:
            await self.lanes.stop()
        self._packed.clear()
        waiting = [work for room in self._rooms.values() for work in room.waiting]
        for room in self._rooms.values():
            room.waiting.clear()
        for work in (*self._ready, *waiting, *(later for behind in self._busy.values() if behind for later in behind)):
            self.give_up(work)
        self._ready.clear()
        for key, behind in self._busy.items():
            if behind:
                self._busy[key] = None
        self._drained = asyncio.Event()
        self.check_drained()
        await self._drained.wait()

    def check_drained(self) -> None:
        """End the drain when nothing that was started is left."""
        if self._drained is not None and not any(work.started for work in self.in_hand):
            self._drained.set()

    async def aclose(self) -> None:
        """Stop the workers."""
        self.stopping = True
        if self._beat is not None:
            self._beat.cancel()
        await self.workers.aclose()
        if self.lanes is not None:
            await self.lanes.aclose()

    def receive(self, delivery: Delivery) -> None:
        """Take one delivery from the broker; never raises, never blocks."""
        if self.stopping:
            return
        if self._packed:
            self._packed.append(delivery)
            return
        work = work_of(delivery)
        if work.envelope.content_type != PROTOBUF and holds_many(work):
            self._parts.receive(work)
        else:
            self._take(work)

    def _take(self, work: Work) -> None:
        """Let a message that has come run when its key is free."""
        if self.lanes is not None and not self.lanes.place(work):
            return
        key = work.key
        self.in_hand.add(work)
        if key in self._busy:
            behind = self._busy[key]
            if behind is None:
                behind = self._busy[key] = deque()
            behind.append(work)
            return
        self._busy[key] = None
        self._ready.append(work)
        if self._idle:
            self.workers.wake()

    def give_up(self, work: Work) -> None:
        """Leave a message for the next start: with the broker, or as the letter that it was."""
        self.in_hand.discard(work)
        if work.letter is not None:
            self._holding.put_back(work.letter)

    def run_letter(self, letter: Letter, done: Callable[[Work], None]) -> None:
        """Handle a held message again; `done(work)` follows when it has its effect or is held once more."""
        work = letter_work(letter)
        if self.stopping or (self.lanes is not None and not self.lanes.adopt(work, letter)):
            self._holding.put_back(letter)
            if not self.stopping:
                done(work)
            return
        work.done = done
        self.in_hand.add(work)
        if not holds_many(work) or not self._parts.unpack_letter(work, partial(self._holding.drop, self, work, letter)):
            self.offer(work)

    def offer(self, work: Work) -> None:
        """Let a worker take a message that is in hand, and whose key waits for nothing else."""
        if work.hold is None or not work.hold.reading.let_go(work):
            self.workers.offer(work)

    def _begin(self, work: Work) -> Coroutine[Any, Any, None] | None:  # noqa: C901, PLR0911 - one way out for each thing that may be wrong
        """Take a message as far as it goes without waiting; the rest, if any, is for the worker to await.

        Most handlers only compute and record: they end here, and their message costs no coroutine but their own.
        """
        if work.error is not None:
            self.retrying.dead(work, work.error)
            return None
        binding = self._bindings.get(work.envelope.type)
        if binding is None and work.letter is None and not self._ours(work):
            self.counts.skipped += 1  # before anything is held: nobody here waits for it, and no key has to
            self.pass_over(work)
            return None
        if work.envelope.expires and is_over(envelopes.moment(work.envelope.expires), self._clock.now()):
            self.retrying.expired(work)
            return None
        if work.hold is not None and work.letter is None and not work.ahead and self._holding.holds(self.topic, work.key):
            return work.hold.reading.begin_ahead(work)
        if work.letter is None and not self._may_start(work):
            return None
        if binding is None:
            text = f"There is no handler for '{work.envelope.type}' here: deploy it, then redrive."
            self.retrying.dead(work, Error(Code.UNIMPLEMENTED, text))
            return None
        if self._relay.full or (self._rooms and not self._has_room(work)):
            return self._begin_later(work) if self._relay.full else None
        if work.envelope.reference is not None:
            return begin_large(self, self._home, work, binding)
        try:
            request = binding.decode(work.delivery.data, work.envelope.content_type)
        except Error as error:
            self.retrying.dead(work, error)
            return None
        started = work.started = self._clock.monotonic()
        if started >= self._pace.due:
            self._pace.begins(work)
        return self.run(work, binding, context_of(self._home, work, binding), request)

    def pass_over(self, work: Work) -> None:
        """Finish with a message that is not handled; where several share the store it counts in the sequence of its key."""
        if work.hold is None or not work.hold.reading.pass_over(work):
            self.finish(work)

    async def _begin_later(self, work: Work) -> None:
        await self._relay.room()
        rest = self._begin(work)
        if rest is not None:
            await rest

    def run(self, work: Work, binding: Binding, ctx: Context, request: Any) -> Coroutine[Any, Any, None] | None:
        """Run the handler as far as it goes without waiting; return the rest, if any."""
        work.running = True
        if work.hold is not None:
            work.hold.reading.guard(ctx.tx.unit, work)
        self._reached("handler.run.before")
        run: Any = copy_context().run
        try:
            handling: Any = run(binding.handler, ctx, request)
            waiting_for = run(handling.send, None)
        except StopIteration:
            if work is self._pace.measured:
                self._pace.ended(work, 1)
            return self._succeeded(work, binding, ctx)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises becomes a retry or a dead letter
            self.retrying.failed(work, handler_error(error, binding.limits, self.fields(work)))
            return None
        rest = self._go_on(work, binding, ctx, resumed(run, handling, waiting_for))
        room = self._rooms.get(work.envelope.type) if self._rooms else None
        return rest if room is None else room.within(rest)

    def _has_room(self, work: Work) -> bool:
        """Tell whether one more run of its handler may begin; a message that has to wait comes again when one ends."""
        room = self._rooms.get(work.envelope.type)
        if room is None or not room.full:
            return True
        room.waiting.append(work)
        if self.circuit.open:
            self.circuit.released(work)
        return False

    async def _go_on(self, work: Work, binding: Binding, ctx: Context, handling: Awaitable[Any]) -> None:
        """Wait for a handler that waits for something."""
        try:
            await handling
            if work is self._pace.measured:
                self._pace.ended(work, min(self._count, binding.limits.concurrency))
        except Duplicate:
            self.finish(work, duplicate=True)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises becomes a retry or a dead letter
            unseen = await rolled_back(ctx)
            late = took_too_long(binding.limits) if self.workers.late else None
            self.retrying.failed(work, late or unseen or handler_error(error, binding.limits, self.fields(work)))
        except BaseException:
            await rolled_back(ctx)
            raise
        else:
            rest = self._succeeded(work, binding, ctx)
            if rest is not None:
                await rest

    def _succeeded(self, work: Work, binding: Binding, ctx: Context) -> Coroutine[Any, Any, None] | None:
        work.running = False
        self.circuit.fine += 1
        self._reached("handler.run.after")
        tx = ctx.used_tx
        if tx is None or tx.session is None:
            self._commit(work, binding, tx)
            return None
        return self._commit_session(work, tx)

    def _may_start(self, work: Work) -> bool:
        envelope = work.envelope
        if not work.ahead and self._holding.holds(self.topic, work.key):
            self.retrying.hold(work, LetterState.WAITING, None)
            return False
        if not envelope.key and envelope.type in self._bindings:
            text = "The message has no 'ce-partitionkey' header: publish it with its order key."
            self.retrying.dead(work, Error(Code.INVALID_ARGUMENT, text))
            return False
        if self._careful and not work.ahead:
            self.retrying.hold(work, LetterState.WAITING, None)
            return False
        return True

    def _ours(self, work: Work) -> bool:
        """Tell whether a type must have a handler here: a command for a service of ours. Other services' types are skipped."""
        return bool(self._strict) and work.envelope.type.startswith(self._strict)

    # --- out ---

    def _commit(self, work: Work, binding: Binding, tx: Transaction | None) -> None:
        """Hand recorded work to the group commit; what the inbox does not guard and wrote nothing is done already."""
        if not binding.once and work.letter is None and work.hold is None and (tx is None or not tx.wrote):
            self.counts.handled += 1
            if self.circuit.open:
                self.circuit.succeeded()
            self.finish(work)
            return
        if tx is not None:
            unit = tx.unit
        else:
            unit = self._home.unit(claim(self._home.name, work.envelope.source, work.envelope.id) if binding.once else None)
        self._prepare(work, unit)
        self._store.submit(unit)

    async def _commit_session(self, work: Work, tx: Transaction) -> None:
        assert tx.session is not None  # noqa: S101 - the caller looked
        self._prepare(work, tx.unit)
        try:
            await tx.session.commit()
        except Error as error:
            if work.hold is None or not work.hold.reading.refused(tx.unit):
                self.retrying.failed(work, error)

    def _prepare(self, work: Work, unit: Unit) -> None:
        unit.tag = work
        unit.settled = self._settled
        if work.hold is not None and unit is not work.unit:
            work.hold.reading.guard(unit, work)
        if work.letter is not None:
            self._holding.leave(unit, work.letter)

    def _settled(self, unit: Unit) -> None:
        work: Work = unit.tag
        if unit.outcome is Outcome.FAILED:
            self.retrying.failed(work, unit.error or Error(Code.UNKNOWN, "The commit failed."))
            return
        if unit.outcome is Outcome.DUPLICATE:
            self.finish(work, duplicate=True)
            return
        if work.hold is not None and unit.outcome is not Outcome.COMMITTED:
            work.hold.reading.refused(unit)
            return
        self.counts.handled += 1
        if self.circuit.open:
            self.circuit.succeeded()
        if self._careful:
            self._careful -= 1
        if unit.messages:
            self._relay.take(unit.messages)
        if unit.due:
            self._relay.planned(unit.due)
        self.finish(work)

    def finish(self, work: Work, *, duplicate: bool = False) -> None:
        """Acknowledge and let the key's next message start."""
        if duplicate:
            if work.hold is not None and work.hold.reading.kept_out(work):
                return
            self.counts.duplicates += 1
            if work.letter is not None:
                self._holding.drop(self, work, work.letter)
                return
        work.delivery.ack()
        self.release(work)

    def release(self, work: Work) -> None:
        """Let go of a message that has its end, and let the next one of its key start."""
        self.in_hand.discard(work)
        if self._packed:
            self._parts.more()
        work.started = 0.0
        if work.ahead:
            self._holding.came(self.topic, work)
        if self.circuit.open:
            self.circuit.released(work)
        if self._careful and not self.in_hand and self._clock.monotonic() > self._careful_until:
            self._careful = 0
        if self._drained is not None:
            self.check_drained()
        if work.done is not None:
            work.done(work)
            return
        behind = self._busy.get(work.key)
        if behind:
            self._ready.append(behind.popleft())
            if self._idle:
                self.workers.wake()
        else:
            self._busy.pop(work.key, None)

    # --- time ---

    def _beats(self) -> None:
        """Keep the messages in hand ours, and end handlers that have run too long. One timer for all of them."""
        for work in self.in_hand:
            work.delivery.beat()
        self._parts.beat()
        self.workers.end_late(self._clock.monotonic())
        self._beat = self._clock.call_later(self._look, self._beats)

    def stopped_by_breaker(self) -> None:
        """Give held messages that wait for a worker back to the store: what is kept there is not tried meanwhile."""
        for work in [each for each in self._ready if each.letter is not None]:
            self._ready.remove(work)
            self.retrying.hand_back(work)
        self._bound(self._pace.prefetch)

    def rebound(self) -> None:
        """Take as many as the handlers get done and the breaker lets through."""
        self._bound(self._pace.prefetch)

    def limits(self, type_: str) -> Limits:
        """Return how messages of a type are handled."""
        binding = self._bindings.get(type_)
        return self._limits if binding is None else binding.limits

    def fields(self, work: Work) -> dict[str, object]:
        """Return what a log entry says about a message."""
        return {"service": self._home.name, "topic": self.topic, "id": work.envelope.id, "type": work.envelope.type, "attempt": work.tries}
