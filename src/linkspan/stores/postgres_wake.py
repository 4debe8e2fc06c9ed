"""The coalesced wake-up: a connection that listens, and tells other processes that rows were written; it carries no content."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from linkspan.ports import Runtime, Timer
    from linkspan.stores.postgres_place import Connection, Place

__all__ = ["Bell"]

_log = logging.getLogger("linkspan.store")

PAUSES = (0.1, 0.5, 2.0, 5.0)
"""Seconds before the connection is made again after it was lost once, twice, ... ."""


class Bell:
    """Wakes other processes of the same schema, and is woken by them.

    A commit that notifies takes a lock that all databases of the server share; so a wake-up is a transaction of its own, here, and however
    much is written, there is one in `wake_delay` seconds.
    """

    def __init__(self, place: Place, name: str, runtime: Runtime) -> None:
        self._place = place
        self._name = name
        self._runtime = runtime
        self.channel = f"linkspan_{hashlib.blake2b(place.schema.encode(), digest_size=8).hexdigest()}"
        self._wakers: list[Callable[[], None]] = []
        self._connection: Connection | None = None
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ringing: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._owed = False
        self._closed = False

    def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever another process rings, and after any time of deafness."""
        self._wakers.append(wake)
        self._start()

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._listen())

    def ring(self) -> None:
        """Wake the others soon."""
        if self._timer is None and not self._closed:
            self._timer = self._runtime.clock.call_later(self._place.limits.wake_delay, self._begin_ring)

    def _begin_ring(self) -> None:
        self._timer = None
        connection = self._connection
        if self._closed:
            return
        if connection is None or connection.is_closed():
            self._owed = True
            self._start()
            return
        if self._ringing is not None and not self._ringing.done():
            self.ring()
            return
        self._ringing = asyncio.get_running_loop().create_task(self._ring(connection.execute(f"notify {self.channel}")))

    async def _ring(self, notify: Awaitable[object]) -> None:
        try:
            await notify
        except Exception as error:  # noqa: BLE001 - only a wake-up
            _log.info("A wake-up could not be sent.", extra={"store": self._name, "error": type(error).__name__})

    async def _listen(self) -> None:
        failures = 0
        while not self._closed:
            try:
                self._lost.clear()
                connection = self._connection = await self._place.connect(self._name)
                connection.add_termination_listener(lambda _connection: self._lost.set())
                await connection.add_listener(self.channel, self._rung)
            except Exception as error:  # noqa: BLE001 - tried again; meanwhile the sweeps find the rows
                _log.warning("Listening for wake-ups failed; will try again.", extra={"store": self._name, "error": type(error).__name__})
            else:
                failures = 0
                self._wake()
                if self._owed:
                    self._owed = False
                    self.ring()
                await self._lost.wait()
            await self._runtime.clock.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1

    def _rung(self, connection: object, pid: int, _channel: str, _payload: object) -> None:
        if connection is self._connection and self._connection is not None and pid != self._connection.get_server_pid():
            self._wake()

    def _wake(self) -> None:
        for wake in self._wakers:
            wake()

    async def aclose(self) -> None:
        """Stop."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = [task for task in (self._task, self._ringing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._connection is not None:
            self._connection.terminate()
