"""A few connections that are used in turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from linkspan.errors import Code, Error, SetupError
from linkspan.stores.postgres_errors import coded

if TYPE_CHECKING:
    from linkspan.stores.postgres_place import Connection, Place

__all__ = ["Pool"]


class Pool:
    """Connections of one kind. Whoever takes one gives it back with no transaction open, or closed."""

    def __init__(self, place: Place, name: str, size: int, *, reading: bool = False) -> None:
        self._place = place
        self._name = name
        self._reading = reading
        self._room = asyncio.Semaphore(size)
        self._idle: list[Connection] = []
        self._out: set[Connection] = set()
        self._closed = False

    async def take(self, *, fresh: bool = False) -> Connection:
        """Return a connection when there is one; a new one where the idle ones cannot be trusted. Raises `Error`."""
        self._usable()
        await self._room.acquire()
        try:
            self._usable()
            if fresh:
                self._drop_idle()
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    break
            else:
                connection = await self._place.connect(self._name, reading=self._reading)
        except BaseException as error:
            self._room.release()
            if isinstance(error, Exception) and not isinstance(error, SetupError):
                raise coded(self._name, error) from error
            raise
        self._out.add(connection)
        return connection

    def give(self, connection: Connection) -> None:
        """Take a connection back. One that may have something open is ended."""
        self._out.discard(connection)
        if self._closed or connection.is_closed() or connection.is_in_transaction():
            connection.terminate()
        else:
            self._idle.append(connection)
        self._room.release()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().terminate()

    async def aclose(self) -> None:
        """Close all; those in use are ended."""
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.close(timeout=self._place.limits.closing) for connection in idle), return_exceptions=True)
        for connection in self._out:
            connection.terminate()

    def _usable(self) -> None:
        if self._closed:
            raise Error(Code.UNAVAILABLE, f"The store '{self._name}' is not open: open it first.")
