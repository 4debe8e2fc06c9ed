"""The SQLite store in simulated time: the real code, its writer a greenlet of the simulated process instead of a thread."""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from typing import TYPE_CHECKING, Any

from linkspan.stores.sqlite import SqliteStore
from linkspan.stores.sqlite_writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from linkspan.ports import Runtime
    from linkspan.stores.sqlite_writer import Queue

__all__ = ["SimStore"]

SOON = (0.000_02, 0.003)
"""Seconds until a writer that waits takes up what came: a thread's switch, at times a slow disk."""


class _SteppedQueue:
    """A queue whose `get` lets the event loop go on until there is something."""

    def __init__(self, writer: _SteppedWriter) -> None:
        self._writer = writer
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        """Add, and wake the writer in a moment."""
        self._items.append(item)
        self._writer.wake(self)

    def get(self, *, timeout: float | None = None) -> Any:
        """Take the first, or wait for it."""
        if not self._items:
            self._writer.wait(self, timeout)
        return self.get_nowait()

    def get_nowait(self) -> Any:
        """Take the first."""
        if not self._items:
            raise queue.Empty
        return self._items.popleft()


class _SteppedWriter(Writer):
    """Runs in a greenlet, so that an interactive transaction can wait for its next statement in the middle of a call."""

    _greenlet: Any = None
    _waits_for: _SteppedQueue | None = None
    _waits = 0

    def start_thread(self, run: Callable[[], None]) -> None:
        """Begin on the loop."""
        from greenlet import greenlet  # type: ignore[import-untyped]  # noqa: PLC0415 - only simulations need it; it has no types

        self._greenlet = greenlet(run)
        asyncio.get_running_loop().call_soon(self._switch)

    def new_queue(self) -> Queue[Any]:
        """Return a queue that steps."""
        return _SteppedQueue(self)

    def wait(self, queue_: _SteppedQueue, timeout: float | None) -> None:
        """Give the event loop its turn until something comes, or the time is over."""
        from greenlet import getcurrent  # noqa: PLC0415 - as above

        self._waits += 1
        self._waits_for = queue_
        if timeout is not None:
            self.runtime.clock.call_later(timeout, self._go_on, self._waits)
        loop: Any = getcurrent().parent
        loop.switch()

    def wake(self, queue_: _SteppedQueue) -> None:
        """Go on soon if this is what the writer waits for."""
        if self._waits_for is queue_:
            self.runtime.clock.call_later(self.runtime.random.uniform(*SOON), self._go_on, self._waits)

    def _go_on(self, waits: int) -> None:
        if self._waits == waits and self._waits_for is not None:
            self._switch()

    def _switch(self) -> None:
        self._waits_for = None
        if self._greenlet is not None and not self._greenlet.dead:
            self._greenlet.switch()


class SimStore(SqliteStore):
    """An `SqliteStore` that a world can kill."""

    writer_kind = _SteppedWriter

    def __init__(self, path: Path, *, name: str, runtime: Runtime) -> None:
        super().__init__(path, name=name, runtime=runtime)

    def kill(self) -> None:
        """End as with the process: what was not committed is gone, the lock is free, and marked as abandoned."""
        self._state = "closed"
        if hasattr(self._writer, "connection"):
            self._writer.undo()  # a connection that is closed with a transaction open would keep the file locked
            self._writer.connection.close()
        self._readers.drop()
        self._lock.free(in_order=False)
