"""Pace: how many messages an instance takes, in proportion to what its handlers get done.

What an instance holds no other can work on. So it takes as much as its workers get done in half a second, measured on its own handlers:
thousands where a handler only records statements, twice as many as there are workers where each takes a second. Time spent in commits
and with the broker is not counted: taking less would not make that shorter.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from linkspan.incoming.work import Work
    from linkspan.ports import Clock

__all__ = ["PREFETCH", "Pace", "Room"]

PREFETCH = 2048
"""Messages in hand at most."""
AHEAD = 0.5
"""Seconds of work that an instance holds."""
EVERY = 0.02
"""Seconds between two measured messages at least: the others cost one comparison."""
TELLS = 0.8
"""A bound below this share of the last one, or above its inverse, is told to the broker."""


class Pace:
    """Measures one message every now and then, and bounds what is taken. `due` and `measured` are read for every message."""

    def __init__(self, clock: Clock, workers: int, fixed: int | None, bound: Callable[[int], None]) -> None:
        self.due = 0.0
        self.measured: Work | None = None
        self.prefetch = fixed or min(2 * workers, PREFETCH)
        self._clock = clock
        self._workers = workers
        self._fixed = fixed is not None
        self._bound = bound
        self._cost: float | None = None

    @property
    def most(self) -> int:
        """Return how many may be in hand at the very most."""
        return self.prefetch if self._fixed else max(PREFETCH, 2 * self._workers)

    def begins(self, work: Work) -> None:
        """Measure a message that begins now. One that is measured and still running has taken that long at least."""
        now = work.started
        self.due = now + EVERY
        older = self.measured
        if older is None or not older.running:
            self.measured = work
        elif now - older.started > AHEAD / 2:
            self._learn(now - older.started, self._workers)

    def ended(self, work: Work, workers: int) -> None:
        """Learn from the measured message; `workers` is how many may do the like at the same time: one where nothing was waited for."""
        self.measured = None
        self._learn(self._clock.monotonic() - work.started, workers)

    def _learn(self, seconds: float, workers: int) -> None:
        if self._fixed:
            return
        cost = seconds / workers
        self._cost = cost if self._cost is None else (self._cost + cost) / 2
        wanted = self.most if self._cost * self.most <= AHEAD else max(2 * self._workers, int(AHEAD / self._cost))
        if not TELLS * self.prefetch <= wanted <= self.prefetch / TELLS:
            self.prefetch = wanted
            self._bound(wanted)


class Room:
    """How many runs of one handler may be waiting for something at the same time, where that is fewer than there are workers."""

    def __init__(self, most: int, offer: Callable[[Work], None]) -> None:
        self.waiting: deque[Work] = deque()
        self._most = most
        self._offer = offer
        self._inside = 0

    @property
    def full(self) -> bool:
        """Tell whether a message has to wait."""
        return self._inside >= self._most

    async def within(self, rest: Coroutine[Any, Any, None]) -> None:
        """Await what is left of a run, then let the next message in."""
        self._inside += 1
        try:
            await rest
        finally:
            self._inside -= 1
            if self.waiting:
                self._offer(self.waiting.popleft())
