"""Reads beside the writer: a few threads, each with a connection that cannot write, each statement on a committed snapshot."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from linkspan.errors import Code, Error
from linkspan.stores.sqlite_errors import coded
from linkspan.stores.sqlite_file import Guard, SqliteLimits, connect

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from linkspan.ports import Value

__all__ = ["Interruptible", "Readers"]

T = TypeVar("T")
THREADS = 2


class Interruptible:
    """Statements in another thread that can be stopped, and never the one that comes after them."""

    __slots__ = ("_connection", "_lock", "_stopped")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._stopped = False

    def run(self, connection: sqlite3.Connection, call: Callable[[], T]) -> T:
        """Run in this thread. Raises `Error(CANCELED)` when it was stopped before."""
        with self._lock:
            if self._stopped:
                raise Error(Code.CANCELED, "The caller has gone.")
            self._connection = connection
        try:
            return call()
        finally:
            with self._lock:
                self._connection = None

    def stop(self) -> None:
        """Interrupt what runs, let nothing more begin."""
        with self._lock:
            self._stopped = True
            if self._connection is not None:
                self._connection.interrupt()


class Readers:
    """The reading threads of one store."""

    def __init__(self, path: Path, name: str, limits: SqliteLimits) -> None:
        self._path = path
        self._name = name
        self._limits = limits
        self._pool = ThreadPoolExecutor(THREADS, f"linkspan-reader-{name}")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []

    async def read(self, sql: str, args: Sequence[Value]) -> list[tuple[Any, ...]]:
        """Run one statement; a cancelled one is interrupted, so that it keeps no thread. Raises `Error`."""
        reading = Interruptible()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, reading, sql, args)
        except asyncio.CancelledError:
            reading.stop()
            raise
        except Exception as error:
            raise coded(self._name, error, reading=True) from error

    def _read(self, reading: Interruptible, sql: str, args: Sequence[Value]) -> list[tuple[Any, ...]]:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = connect(self._path, self._limits, Guard(), reading=True)
            self._connections.append(connection)
        return reading.run(connection, lambda: connection.execute(sql, args).fetchall())

    async def aclose(self) -> None:
        """Let what runs end, then close."""
        await asyncio.to_thread(self._pool.shutdown)
        self.drop()

    def drop(self) -> None:
        """Close the connections; nothing may be reading."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()
