"""The timetable: messages that leave later, kept in the store until they are due, then moved into the outbox.

A scheduled message is a row that became true with the transaction that sent it. When it is due it becomes an outbox row, in one transaction
that deletes the one and writes the other: a crash leaves it in exactly one of the two places, and a cancel finds it or does not. From
there on it is any other message: same relay, and its number in its key's order is the one it gets then (ADR 20).
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Final

from linkspan.errors import Error
from linkspan.ports import Outcome, Unit

if TYPE_CHECKING:
    from linkspan.outgoing.outbox import Relay
    from linkspan.ports import Runtime, Store, Timer

__all__ = ["Timetable"]

_log = logging.getLogger("linkspan.outbox")

PAGE: Final = 500
"""Messages moved in one transaction."""
SWEEP: Final = 30.0
"""Seconds between two looks where nothing is due earlier: a clock that was set, or a row of another process that has died."""
AGAIN: Final = 1.0
"""Seconds until a store that failed is asked again."""
TURN: Final = 0.001
"""The shortest wait: timers run on another clock than due times, and may be early by a hair."""


class Timetable:
    """Moves what is due in one store into its outbox. One timer, set for the earliest that is known."""

    def __init__(self, store: Store, relay: Relay, runtime: Runtime) -> None:
        self._store = store
        self._relay = relay
        self._clock = runtime.clock
        self._reached = runtime.reached
        self._timer: Timer | None = None
        self._at = math.inf
        self._moving: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def busy(self) -> bool:
        """Tell whether due messages are being looked for or moved right now."""
        return self._moving is not None

    def start(self) -> None:
        """Move what became due while nobody looked."""
        self._relay.planned = self.planned
        self._fire()

    def planned(self, due: float) -> None:
        """Take note of a committed message that is due at a moment."""
        if due < self._at:
            self._at = due
            if self._moving is None:
                self._set()

    async def aclose(self) -> None:
        """Stop; what is not moved stays for the next start. Idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.gather(self._moving, return_exceptions=True)

    def _set(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed:
            self._timer = self._clock.call_later(max(self._at - self._clock.now(), TURN), self._fire)

    def _fire(self) -> None:
        self._timer = None
        if not self._closed and self._moving is None:
            self._at = math.inf
            self._moving = asyncio.get_running_loop().create_task(self._move_all())

    async def _move_all(self) -> None:
        try:
            while (due := await self._store.next_due()) is not None and due <= self._clock.now():
                await self._move()
        except Error as error:
            due = self._clock.now() + AGAIN
            fields = {"service": self._store.name, "code": error.code.value}
            _log.warning("Moving scheduled messages failed; will try again.", extra=fields)
        self._at = min(self._at, self._clock.now() + SWEEP, math.inf if due is None else due)
        self._moving = None
        self._set()

    async def _move(self) -> None:
        """Move a page, in the order of due times and, among equal ones, of commits."""
        await self._relay.room()
        unit = Unit(self._moved)
        opened = await self._store.begin(unit, *self._store.taking(self._clock.now(), PAGE))
        assert opened is not None  # noqa: S101 - a unit without an inbox claim is no duplicate
        session, rows = opened
        unit.messages += [each.message for each in self._store.taken(rows)]
        self._reached("schedule.move.before")
        await session.commit()
        self._reached("schedule.move.after")

    def _moved(self, unit: Unit) -> None:
        if unit.outcome is Outcome.COMMITTED:
            self._relay.take(unit.messages)
