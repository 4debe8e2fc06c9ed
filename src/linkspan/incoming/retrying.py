"""Retrying: what becomes of a message whose handler failed, or that cannot be handled at all.

Tried again at once, held in the store in its key's order, and, where the store cannot take it, kept in hand with its key behind it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from linkspan.ports import LetterState

if TYPE_CHECKING:
    from linkspan.context import Home
    from linkspan.errors import Error
    from linkspan.incoming.consumer import Consumer
    from linkspan.incoming.work import Work
    from linkspan.letters.deadletter import Holding

__all__ = ["Retrying"]

_log = logging.getLogger("linkspan.consumer")


class Retrying:
    """Deals with the failures of one consumer."""

    def __init__(self, consumer: Consumer, home: Home, holding: Holding) -> None:
        self._consumer = consumer
        self._clock = home.runtime.clock
        self._random = home.runtime.random
        self._reached = home.runtime.reached
        self._holding = holding

    def failed(self, work: Work, error: Error) -> None:
        """Try a message again, hold it for a later try, or give it up, as its error and its tries say."""
        work.running = False
        work.started = 0.0
        work.first_failed = work.first_failed or self._clock.now()
        limits = self._consumer.limits(work.envelope.type)
        helps = limits.helps(error)
        if helps and self._consumer.circuit.failed(work, error):
            self._wait(work)
            return
        work.tries += 1
        if not helps:
            self.dead(work, error)
            return
        if work.tries < limits.inline:
            self._consumer.counts.retried += 1
            _log.info("A message failed; trying again.", extra={**self._consumer.fields(work), "code": error.code.value})
            self._reached("retry.wait.before")
            self._clock.call_later(limits.pause(work.tries, self._random.random()), self._again, work)
            self._consumer.check_drained()
            return
        self.hold(work, LetterState.PARKED, error)

    def _wait(self, work: Work) -> None:
        """Keep a message for when what it needs is back: a held one in the store, any other in hand, behind those not tried yet."""
        work.in_vain += 1
        if work.letter is not None:
            self.hand_back(work)
        elif self._consumer.stopping:
            self._consumer.give_up(work)
        elif work.hold is None or not work.hold.reading.let_go(work):
            self._consumer.workers.ready.append(work)
        self._consumer.check_drained()

    def hand_back(self, work: Work) -> None:
        """Store a held message as it was before a run that failed through no fault of its own, or did not take place; then let go of it.

        Where that could not be stored it is under suspicion, which costs it no try.
        """
        assert work.letter is not None  # noqa: S101 - the caller looked
        work.started = work.started or self._clock.monotonic()
        self._holding.put_back(work.letter, lambda _unit: self._consumer.release(work))

    def _again(self, work: Work) -> None:
        self._reached("retry.wait.after")
        if self._consumer.stopping:
            self._consumer.give_up(work)
            return
        self._consumer.offer(work)

    def dead(self, work: Work, error: Error) -> None:
        """Make a dead letter of a message that no further try can help."""
        self.hold(work, LetterState.DEAD, error)

    def expired(self, work: Work) -> None:
        """End a message that nobody wants any more, before it is decoded; a held one is audited."""
        self._consumer.counts.expired += 1
        _log.info("A message expired before it was handled.", extra=self._consumer.fields(work))
        if work.letter is None:
            self._consumer.pass_over(work)
        else:
            self._holding.drop(self._consumer, work, work.letter, expired=True)

    def hold(self, work: Work, state: LetterState, error: Error | None) -> None:
        """Put the message in the store, in its key's order, then acknowledge it."""
        work.started = work.started or self._clock.monotonic()
        self._holding.hold(self._consumer, work, state, error)

    def held(self, work: Work, state: LetterState) -> None:
        """Go on after a message was stored as a letter."""
        self._consumer.counts.dead += state is LetterState.DEAD
        self._consumer.counts.parked += state is LetterState.PARKED
        self._consumer.finish(work)

    def not_held(self, work: Work, state: LetterState, error: Error | None, retry: float) -> None:
        """Keep the message in hand, since the store cannot take it now; its key waits with it."""
        work.started = 0.0
        self._clock.call_later(retry, self._hold_again, work, state, error)
        self._consumer.check_drained()

    def _hold_again(self, work: Work, state: LetterState, error: Error | None) -> None:
        if self._consumer.stopping:
            self._consumer.give_up(work)
            return
        self.hold(work, state, error)
