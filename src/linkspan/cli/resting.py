"""Time that rests while the process is held: at a breakpoint, by SIGSTOP, or by code that blocks the event loop.

`linkspan dev` runs on this loop and this clock. A pulse looks at the clock several times a second; when nobody has looked for longer than
that, the loop was not running, and the time in between does not count. Deadlines, timeouts and timers of asyncio and of Linkspan are
all moments on this clock, so none of them passes while somebody reads variables in a debugger.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING

from linkspan.runtime import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PULSE", "RestingClock", "RestingLoop", "RestingTime"]

_log = logging.getLogger("linkspan.dev")

PULSE = 0.2
"""Seconds between two looks at the clock of a loop that runs."""
HELD = 1.0
"""Seconds without a look after which the loop was held."""


class RestingTime:
    """Monotonic seconds without those during which its thread did not look; other threads may look, and see the same time."""

    def __init__(self, source: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._thread = threading.get_ident()
        self._seen = source()
        self.rested = 0.0

    def __call__(self) -> float:
        """Return the seconds."""
        with self._lock:
            now = self._source()
            held = now - self._seen
            rest = held - PULSE if held > HELD else 0.0
            if threading.get_ident() == self._thread:
                self._seen = now
                self.rested += rest
                rest = 0.0
            return now - self.rested - rest


class RestingLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers rest while it is held."""

    def __init__(self) -> None:
        self.resting = RestingTime()
        self._told = 0.0
        super().__init__()
        self.call_later(PULSE, self._pulse)

    def time(self) -> float:
        """Return the seconds on which all timers of the loop stand."""
        return self.resting()

    def _pulse(self) -> None:
        self.call_later(PULSE, self._pulse)
        rested = self.resting.rested - self._told
        if rested:
            self._told += rested
            _log.warning("The event loop was held; deadlines have rested meanwhile.", extra={"seconds": round(rested, 1)})


class RestingClock(SystemClock):
    """The machine's clock, with a monotonic side that rests as the loop does."""

    def __init__(self, loop: RestingLoop) -> None:
        self.monotonic = loop.resting
