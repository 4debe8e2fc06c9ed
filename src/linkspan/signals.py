"""Running until the process is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["run_until_signal"]

_log = logging.getLogger("linkspan.app")

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Runs(Protocol):
    """What is run: an App."""

    started: asyncio.Event

    @property
    def running(self) -> Mapping[str, object]:
        """Return the running services by name."""
        ...

    async def start(self, only: Collection[str] = ()) -> None:
        """Start."""
        ...

    async def aclose(self) -> None:
        """Drain and close."""
        ...


async def run_until_signal(app: Runs, only: Collection[str] = ()) -> None:
    """Start, serve until SIGTERM or SIGINT, then drain and close. A signal while starting, or a second one, ends it at once."""
    task, loop, stopped = asyncio.current_task(), asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        if task is not None and (stopped.is_set() or not app.started.is_set()):
            task.cancel()
        stopped.set()

    for number in SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        try:
            await app.start(only)
            await stopped.wait()
            _log.info("Draining.", extra={"services": list(app.running)})
        finally:
            await app.aclose()
    except asyncio.CancelledError:
        if task is None or not stopped.is_set():
            raise
        task.uncancel()
        _log.warning("Ended without draining; the rest goes on at the next start.")
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
