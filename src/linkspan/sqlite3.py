"""An outbox inside transactions of the standard library's sqlite3.

    outbox = Outbox("shop.db")
    orders = Service("orders", owns=[contract], outbox=outbox)

    with connection:
        connection.execute("insert into orders values (?)", [order_id])
        outbox.publish(connection, OrderPlaced(order_id=order_id))

The message becomes true with the commit, or not at all; a running App whose Service has this outbox sends it after that.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linkspan.errors import Code, Error, SetupError
from linkspan.handing import SQLITE, Handing, message_of, refuse_alone, row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from linkspan.ports import Outgoing, Runtime

__all__ = ["Outbox"]


class Outbox(Handing):
    """Publishes in transactions of sqlite3 connections to one file, in any thread."""

    def __init__(self, path: str | Path, *, runtime: Runtime | None = None) -> None:
        super().__init__(runtime)
        if str(path) in {"", ":memory:"}:
            raise SetupError("Outbox needs an SQLite file: messages in memory would be lost.")
        self._path = Path(path)
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute(SQLITE.CREATE)

    def publish(self, connection: sqlite3.Connection, event: Any, message: Any = None, *, alone: bool = False) -> None:
        """Publish an event when the connection's transaction commits; nothing is sent if it rolls back.

        Raises `Error`: INVALID_ARGUMENT (no key, too large), FAILED_PRECONDITION (another owner's or file's; outside a
        transaction, unless `alone`).
        """
        self._hand_over(connection, self.made_event(event, message), alone=alone)

    def send(self, connection: sqlite3.Connection, operation: Any, request: Any, *, key: str | None = None, alone: bool = False) -> None:
        """Send a durable command when the transaction commits. The same `key` for the same operation is one effect."""
        self._hand_over(connection, self.made_command(operation, request, key), alone=alone)

    def _hand_over(self, connection: sqlite3.Connection, message: Outgoing, *, alone: bool) -> None:
        if not isinstance(connection, sqlite3.Connection):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
            raise SetupError(f"Outbox.publish was given a {type(connection).__name__}: give the sqlite3 connection of the transaction.")
        # With an isolation level the first change begins a transaction, so there is always one to commit.
        if not alone and connection.isolation_level is None and not connection.in_transaction:
            raise refuse_alone("connection")
        file = next((row[2] for row in connection.execute("pragma database_list") if row[1] == "main"), "")
        if not file or not self._path.samefile(file):
            text = "The connection writes to another file than the Outbox reads: give the Outbox the path of this one."
            raise Error(Code.FAILED_PRECONDITION, text)
        connection.execute(SQLITE.INSERT, row_of(message))
        self.committed_soon()

    # --- what the mover asks (linkspan.handover.HandOver)

    async def open(self, wake: Callable[[], None]) -> None:
        """Begin to be woken; the table was made with the outbox."""
        self.opened(wake)

    async def committed(self, limit: int) -> list[tuple[int, Outgoing]]:
        """Return the first committed rows."""
        return await asyncio.to_thread(self._read, limit)

    def _read(self, limit: int) -> list[tuple[int, Outgoing]]:
        with closing(sqlite3.connect(self._path)) as connection:
            return [message_of(row) for row in connection.execute(SQLITE.SELECT, [limit])]

    async def remove(self, positions: Sequence[int]) -> None:
        """Delete rows that were moved."""
        await asyncio.to_thread(self._delete, positions)

    def _delete(self, positions: Sequence[int]) -> None:
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.executemany(SQLITE.DELETE, [[position] for position in positions])
