"""A clock that tests own: time stands still until it is told to move."""

from __future__ import annotations

import asyncio
import heapq
import random
from itertools import count
from typing import TYPE_CHECKING, Any

from linkspan.ports import Runtime
from linkspan.runtime import RandomIds, nowhere

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FakeClock", "fake_runtime"]

START = 1_700_000_000.0
"""Where a fake clock begins: 2023-11-14 22:13:20 UTC."""


class FakeTimer:
    """A call that is due at a moment of a fake clock."""

    __slots__ = ("_call", "cancelled")

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self.cancelled = False

    def cancel(self) -> None:
        """Forget the call."""
        self.cancelled = True

    def fire(self) -> None:
        """Make the call, unless it was cancelled."""
        if not self.cancelled:
            self._call()


class FakeClock:
    """Stands still until `advance`; timers then run in their order, each at its own moment."""

    def __init__(self, start: float = START) -> None:
        self._now = start
        self._start = start
        self._order = count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def now(self) -> float:
        """Return seconds since 1970 UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds since the clock was made, plus a thousand."""
        return 1_000.0 + self._now - self._start

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> FakeTimer:
        """Call when the clock has moved `delay` seconds."""
        timer = FakeTimer(lambda: callback(*args))
        heapq.heappush(self._timers, (self._now + max(delay, 0.0), next(self._order), timer))
        return timer

    async def sleep(self, delay: float) -> None:
        """Wait until the clock has moved `delay` seconds; a sleep of 0 only lets others run."""
        if delay <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call_later(delay, _finish, future)
        await future

    async def advance(self, seconds: float) -> None:
        """Move the clock, running what becomes due, and let the loop settle after each step."""
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, due)
            timer.fire()
            await settle()
        self._now = end
        await settle()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def settle(turns: int = 20) -> None:
    """Let tasks and callbacks that are ready run."""
    for _ in range(turns):
        await asyncio.sleep(0)


def fake_runtime(seed: int = 1, reached: Callable[[str], None] = nowhere) -> tuple[Runtime, FakeClock]:
    """Return a runtime whose every id and delay follows from the seed, and its clock."""
    clock = FakeClock()
    source = random.Random(seed)  # noqa: S311 - repeatable on purpose
    return Runtime(clock, source, RandomIds(clock, source), reached), clock
