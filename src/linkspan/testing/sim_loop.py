"""Event loops in simulated time: one for each simulated process, all in one thread, in an order that follows from a seed."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["SimLoop", "Time"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Time:
    """The moment that all loops of a world share, in seconds since it began."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now = 0.0


class SimLoop(asyncio.BaseEventLoop):
    """The loop of one simulated process. Nobody runs it: its world calls `run_one`.

    What would run in a thread runs on the loop, after a delay of its own; so a store's reader is late, as a real one is.
    """

    _ready: Any
    _scheduled: Any

    def __init__(self, time: Time, chance: random.Random) -> None:
        super().__init__()
        self._shared_time = time
        self._chance = chance

    def time(self) -> float:
        """Return the world's moment."""
        return self._shared_time.now

    def _write_to_self(self) -> None:
        """Wake nobody: there is one thread."""

    def call_soon_threadsafe(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Any = None) -> asyncio.Handle:
        """Call soon, as for any caller in the one thread."""
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]  # as threads do
        """Call on the loop a little later."""
        del executor
        future: asyncio.Future[T] = self.create_future()
        self.call_later(self._chance.uniform(0.000_01, 0.002), _answer, future, func, args)
        return future

    async def create_server(self, *_: Any, **__: Any) -> Any:
        """Listen where nobody will ever connect: there is no network here, only a broker."""
        return _Listener()

    # --- what the world asks

    @property
    def due(self) -> float | None:
        """Return when there is something to do: now or earlier, at a timer's moment, or never (None)."""
        if self._ready:
            return 0.0
        while self._scheduled and self._scheduled[0]._cancelled:  # noqa: SLF001 - a loop's own timers
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # noqa: SLF001 - as above
        return float(self._scheduled[0].when()) if self._scheduled else None

    def run_one(self) -> None:
        """Run the next callback; timers that are due become ready first."""
        while self._scheduled and self._scheduled[0].when() <= self.time():
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # noqa: SLF001 - a loop's own timer
            if not timer.cancelled():
                self._ready.append(timer)
        if not self._ready:
            return
        handle = self._ready.popleft()
        if handle.cancelled():
            return
        before = events._get_running_loop()  # noqa: SLF001 - the documented way needs a thread
        events._set_running_loop(self)  # noqa: SLF001 - as above
        try:
            handle._run()  # noqa: SLF001 - what a loop does
        finally:
            events._set_running_loop(before)  # noqa: SLF001 - as above

    def drop(self) -> None:
        """End as a killed process does: nothing that waits will run."""
        self.set_exception_handler(_ignore)
        self._ready.clear()
        self._scheduled.clear()
        self.close()


class _Listener:
    """A server without a network."""

    @property
    def sockets(self) -> list[_Listener]:
        """Return what has an address."""
        return [self]

    def getsockname(self) -> tuple[str, int]:
        """Return an address."""
        return ("127.0.0.1", 1)

    def close(self) -> None:
        """Do nothing."""

    async def wait_closed(self) -> None:
        """Do nothing."""


def _answer(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if future.cancelled():
        return
    try:
        result = func(*args)
    except Exception as error:  # noqa: BLE001 - the caller gets it
        future.set_exception(error)
    else:
        future.set_result(result)


def _ignore(_loop: asyncio.AbstractEventLoop, _context: dict[str, Any]) -> None:
    """Say nothing of the dead."""
