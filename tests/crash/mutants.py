"""Linkspan broken on purpose, one promise at a time: a crash suite that misses one of these proves nothing."""

from __future__ import annotations

import asyncio
from copy import copy
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from linkspan import Code, Error, consumer, outbox, work
from linkspan.brokers import nats, nats_admin
from linkspan.consumer import Consumer
from linkspan.deadletter import Holding
from linkspan.outbox import Relay
from linkspan.running import RunningService
from linkspan.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from linkspan.ports import Letter, LetterState, Outgoing
    from linkspan.work import Work


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault, the crash plan that shows it, and the rules that must be found broken (one of them at least)."""

    apply: Callable[[], None]
    spec: str
    rules: frozenset[str]
    lossy: float = 0.0


MUTANTS: dict[str, Mutant] = {}


def changed(message: Outgoing, **attributes: Any) -> Outgoing:
    """Return a copy with other attributes."""
    other = copy(message)
    for name, value in attributes.items():
        setattr(other, name, value)
    return other


def mutant(spec: str, *rules: str, lossy: float = 0.0) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """File a fault under its function's name."""

    def file(apply: Callable[[], None]) -> Callable[[], None]:
        MUTANTS[apply.__name__] = Mutant(apply, spec, frozenset(rules), lossy)
        return apply

    return file


def put(owner: Any, name: str, value: Any) -> None:
    """Replace a part, for this process."""
    setattr(owner, name, value)


@mutant("ledger=store.commit.before:8:kill;store.commit.before:4:kill", "lost")
def acknowledged_before_the_commit() -> None:
    right = Consumer.run

    def run(self: Consumer, taken: Work, *rest: Any) -> Any:
        taken.delivery.ack()
        return right(self, taken, *rest)

    put(Consumer, "run", run)


@mutant("ledger=broker.ack.before:60:kill", "double")
def inbox_claims_nothing() -> None:
    for module in (work, consumer):
        put(module, "claim", lambda service, source, _id: (f"{service}<{source}", str(uuid4())))


@mutant("ledger=store.commit.before:25:kill", "order")
def consumer_not_reset() -> None:
    async def reset(_self: Any, _stream: str, _consumer: str) -> None: ...

    put(nats_admin.Admin, "reset", reset)
    put(nats_admin, "ACK_WAIT", 1.0)


@mutant("orders=store.commit.before:25:kill", "ghost")
def published_before_the_commit() -> None:
    right = RunningService.commit

    async def commit(self: RunningService, tx: Any) -> None:
        for message in tx.unit.messages:
            await self._broker.publish(message)
        await right(self, tx)

    put(RunningService, "commit", commit)


@mutant("orders=store.commit.before:20:kill", "lost")
def answered_before_the_commit() -> None:
    async def commit(self: RunningService, tx: Any) -> None:
        tx.unit.settled = lambda unit: self.relay.take(unit.messages)
        if tx.session is None:
            # The answer is on its way for certain when the process dies at the commit of another.
            asyncio.get_running_loop().call_later(0.5, self._store.submit, tx.unit)
        else:
            await tx.session.commit()

    put(RunningService, "commit", commit)


@mutant("orders=relay.publish.before:4:kill", "lost")
def outbox_not_read_at_start() -> None:
    async def start(self: Relay) -> None:
        self._late = None

    put(Relay, "start", start)


@mutant("orders=outbox.delete.after:3:kill", "lost", lossy=1.0)
def outbox_deleted_before_it_is_stored() -> None:
    right = Relay._publish

    def publish(self: Relay, message: Outgoing) -> None:
        self._store.sent([message])
        right(self, message)

    put(Relay, "_publish", publish)


@mutant("", "order", lossy=0.2)
def several_of_a_key_in_flight() -> None:
    right = Relay._accept

    def accept(self: Relay, message: Outgoing) -> None:
        right(self, changed(message, key=f"{message.key}#{message.position}"))

    put(Relay, "_accept", accept)


@mutant("orders=relay.publish.after:4:kill", "double")
def fresh_id_per_attempt() -> None:
    right = nats.NatsBroker.publish

    def publish(self: nats.NatsBroker, message: Outgoing) -> asyncio.Future[None]:
        fresh = str(uuid4())
        return right(self, changed(message, id=fresh, headers=message.headers.replace(message.id.encode(), fresh.encode(), 1)))

    put(nats.NatsBroker, "publish", publish)


@mutant("", "order")
def keys_not_serialised() -> None:
    right, turns = Consumer.receive, count()

    def receive(self: Consumer, delivery: Any) -> None:
        right(self, delivery)
        for key, behind in list(self._busy.items()):
            if behind:
                for work in behind:
                    work.key = f"{key}#{next(turns)}"
                    self._ready.append(work)
                self._busy[key] = None
                self.workers.wake()

    put(Consumer, "receive", receive)


@mutant("", "lost")
def failed_messages_not_stored() -> None:
    def hold(_self: Holding, consumer: Consumer, work: Work, state: LetterState, _error: Error | None) -> None:
        consumer.retrying.held(work, state)

    put(Holding, "hold", hold)


@mutant("", "order")
def held_keys_do_not_wait() -> None:
    put(Holding, "holds", lambda _self, _topic, _key: False)


@mutant("ledger=letter.hold.after:2:kill;store.commit.before:3:kill", "lost", "order")
def acknowledged_before_the_letter_is_stored() -> None:
    right = Holding.hold

    def hold(self: Holding, consumer: Consumer, work: Work, state: LetterState, error: Error | None) -> None:
        work.delivery.ack()
        self._home.runtime.clock.call_later(0.3, right, self, consumer, work, state, error)

    put(Holding, "hold", hold)


@mutant("", "lost")
def letter_removed_before_it_is_handled() -> None:
    right = Holding._start

    def start(self: Holding, letter: Letter) -> bool:
        unit = self._home.unit()
        self._store.remove_letter(unit, letter.position)
        self._store.submit(unit)
        return right(self, letter)

    put(Holding, "_start", start)


@mutant("ledger=letter.hold.after:5:kill", "order", "stuck")
def held_keys_forgotten_at_start() -> None:
    async def start(self: Holding) -> None:
        self._timer = self._clock.call_later(1.0, self._tick)

    put(Holding, "start", start)
    put(SqliteStore, "crashed", False)  # the care after a crash would hold the keys anew


@mutant("", "lost")
def effect_outside_the_transaction() -> None:
    """Commit the claim without what was recorded, as a commit of its own, and fail once in between."""
    right, turns = Consumer._commit, count()

    def commit(self: Consumer, work: Work, binding: Any, tx: Any) -> None:
        if tx is not None and next(turns) % 7 == 0:
            unit = self._home.unit()
            unit.inbox = tx.unit.inbox
            self._store.submit(unit)
            self.retrying.failed(work, Error(Code.UNAVAILABLE, "It crashed in between."))
            return
        right(self, work, binding, tx)

    put(Consumer, "_commit", commit)


def make_lossy(share: float) -> None:
    """Fail a share of the publishes, half of them after they were stored: what a bad network does."""
    right, turns = nats.NatsBroker.publish, count()
    every = round(1 / share)

    def publish(self: nats.NatsBroker, message: Outgoing) -> asyncio.Future[None]:
        turn = next(turns)
        if turn % every:
            return right(self, message)
        if turn % (2 * every):
            right(self, message).add_done_callback(lambda future: future.exception())
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        failed.set_exception(Error(Code.UNAVAILABLE, "Not known whether it was stored."))
        return failed

    put(nats.NatsBroker, "publish", publish)
    put(outbox, "PAUSES", (0.01,))
