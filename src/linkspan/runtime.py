"""The real clock, random source and ids. The only module of the package that asks the machine for them."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from typing import TYPE_CHECKING, Any

from linkspan.ports import Runtime, Timer

if TYPE_CHECKING:
    from collections.abc import Callable

    from linkspan.ports import Clock

__all__ = ["RandomIds", "SystemClock", "calm_collector", "system"]


class SystemClock:
    """The machine's clock and the running loop's timers."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call back on the running loop."""
        return asyncio.get_running_loop().call_later(delay, callback, *args)

    async def sleep(self, delay: float) -> None:
        """Wait on the running loop."""
        await asyncio.sleep(delay)


_KEPT, _VARIANT = ~(0x4 << 60), 0x8 << 60
"""The two bits in front of a UUID's last 62 are 1 and 0."""


class RandomIds:
    """UUIDv7 text (RFC 9562 §5.7) from an injected clock and random source."""

    __slots__ = ("_bits", "_head", "_millis", "_now")

    def __init__(self, clock: Clock, source: random.Random) -> None:
        self._now = clock.now
        self._bits = source.getrandbits
        self._millis = -1
        self._head = ""

    def new(self) -> str:
        """Return a new UUIDv7: 48 bits of milliseconds, 74 random bits."""
        digits, millis = f"{self._bits(76) & _KEPT | _VARIANT:019x}", int(self._now() * 1000)
        if millis != self._millis:
            self._millis, self._head = millis, f"{millis >> 16:08x}-{millis & 0xFFFF:04x}-7"
        return f"{self._head}{digits[:3]}-{digits[3:7]}-{digits[7:]}"

    def span(self) -> str:
        """Return a W3C span id."""
        return f"{self._bits(64) | 1:016x}"

    def trace(self) -> str:
        """Return a W3C trace id."""
        return f"{self._bits(128) | 1:032x}"


def nowhere(_point: str) -> None:
    """Pass a named point; production does nothing there."""


def system(reached: Callable[[str], None] = nowhere) -> Runtime:
    """Return the runtime of a real process: its random source is seeded from the operating system."""
    clock = SystemClock()
    source = random.Random(random.SystemRandom().getrandbits(256))  # noqa: S311 - ids and jitter, not secrets
    return Runtime(clock, source, RandomIds(clock, source), reached)


def calm_collector() -> None:
    """Collect cycles less often, unless the process has chosen: messages make none, and looking for them cost a third of the time."""
    if gc.get_threshold() == (700, 10, 10):
        gc.set_threshold(20_000, 20, 50)
    gc.freeze()
