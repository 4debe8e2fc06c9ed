"""An outbox inside psycopg 3 transactions, synchronous and asynchronous. Needs the package `psycopg`.

    outbox = Outbox("postgresql://app@localhost/shop")
    orders = Service("orders", owns=[contract], outbox=outbox)

    with connection.transaction():
        connection.execute("insert into orders values (%s)", [order_id])
        outbox.publish(connection, OrderPlaced(order_id=order_id))           # with an AsyncConnection: await outbox.publish(...)

The message becomes true with the commit, or not at all; a running App whose Service has this outbox sends it after that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, LiteralString, cast, overload

import psycopg
from psycopg.pq import TransactionStatus

from linkspan.errors import SetupError
from linkspan.handing import POSTGRES, Handing, message_of, refuse_alone, row_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from linkspan.ports import Outgoing, Runtime

__all__ = ["Outbox"]

_INSERT: Any = re.sub(r"\$(\d)", r"%(p\1)s", POSTGRES.INSERT)
_SELECT: LiteralString = POSTGRES.SELECT.replace("$1", "%s")
_DELETE: LiteralString = POSTGRES.DELETE.replace("$1", "%s")


class Outbox(Handing):
    """Publishes in transactions of psycopg connections to one database, of which `conninfo` is the URL or connection string."""

    def __init__(self, conninfo: str, *, runtime: Runtime | None = None) -> None:
        super().__init__(runtime)
        self._conninfo = conninfo

    @overload
    def publish(
        self, connection: psycopg.AsyncConnection[Any], event: Any, message: Any = None, *, alone: bool = False
    ) -> Awaitable[None]: ...
    @overload
    def publish(self, connection: psycopg.Connection[Any], event: Any, message: Any = None, *, alone: bool = False) -> None: ...
    def publish(self, connection: Any, event: Any, message: Any = None, *, alone: bool = False) -> Awaitable[None] | None:
        """Publish an event when the connection's transaction commits; nothing is sent if it rolls back.

        Raises `Error`: INVALID_ARGUMENT (no key, too large), FAILED_PRECONDITION (another owner's; outside a transaction, unless `alone`).
        """
        return self._hand_over(connection, self.made_event(event, message), alone=alone)

    @overload
    def send(
        self, connection: psycopg.AsyncConnection[Any], operation: Any, request: Any, *, key: str | None = None, alone: bool = False
    ) -> Awaitable[None]: ...
    @overload
    def send(
        self, connection: psycopg.Connection[Any], operation: Any, request: Any, *, key: str | None = None, alone: bool = False
    ) -> None: ...
    def send(self, connection: Any, operation: Any, request: Any, *, key: str | None = None, alone: bool = False) -> Awaitable[None] | None:
        """Send a durable command when the transaction commits. The same `key` for the same operation is one effect."""
        return self._hand_over(connection, self.made_command(operation, request, key), alone=alone)

    def _hand_over(self, connection: Any, message: Outgoing, *, alone: bool) -> Awaitable[None] | None:
        if not isinstance(connection, psycopg.Connection | psycopg.AsyncConnection):
            raise SetupError(f"Outbox.publish was given a {type(connection).__name__}: give the psycopg connection of the transaction.")
        # Without autocommit the first statement begins a transaction, so there is always one to commit.
        if not alone and connection.autocommit and connection.info.transaction_status is TransactionStatus.IDLE:
            raise refuse_alone("connection")
        opened = cast("Any", connection)
        values = {f"p{number}": value for number, value in enumerate(row_of(message), 1)}
        if isinstance(connection, psycopg.AsyncConnection):
            return self._insert(opened, values)
        connection.execute(_INSERT, values)
        self.committed_soon()
        return None

    async def _insert(self, connection: psycopg.AsyncConnection[Any], values: dict[str, Any]) -> None:
        await connection.execute(_INSERT, values)
        self.committed_soon()

    # --- what the mover asks (linkspan.handover.HandOver)

    async def open(self, wake: Callable[[], None]) -> None:
        """Make the table where it is missing."""
        try:
            await self._run(POSTGRES.CREATE)
        except psycopg.OperationalError as error:
            text = f"The database of the Outbox cannot be opened ({type(error).__name__}): start it, or correct its URL."
            raise SetupError(text) from error
        self.opened(wake)

    async def committed(self, limit: int) -> list[tuple[int, Outgoing]]:
        """Return the first committed rows."""
        return [message_of(row) for row in await self._run(_SELECT, limit)]

    async def remove(self, positions: Sequence[int]) -> None:
        """Delete rows that were moved."""
        await self._run(_DELETE, list(positions))

    async def _run(self, sql: LiteralString, *args: Any) -> list[Any]:
        """Run one statement on a connection of its own, so that one that breaks is nobody's trouble later."""
        async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
            cursor: Any = await connection.execute(sql, args or None)
            rows: list[Any] = await cursor.fetchall() if cursor.description else []
            return rows
