"""An outbox inside asyncpg transactions. Needs the extra `postgres`.

    outbox = Outbox("postgresql://app@localhost/shop")
    orders = Service("orders", owns=[contract], outbox=outbox)

    async with connection.transaction():
        await connection.execute("insert into orders values ($1)", order_id)
        await outbox.publish(connection, OrderPlaced(order_id=order_id))

The message becomes true with the commit, or not at all; a running App whose Service has this outbox sends it after that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from linkspan.errors import SetupError
from linkspan.handing import POSTGRES, Handing, message_of, refuse_alone, row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from linkspan.ports import Outgoing, Runtime

__all__ = ["Outbox"]


class Outbox(Handing):
    """Publishes in transactions of asyncpg connections to one database. `database` is its URL, or a pool of the user's."""

    def __init__(self, database: str | asyncpg.Pool[Any], *, runtime: Runtime | None = None) -> None:
        super().__init__(runtime)
        self._database = database
        self._pool: asyncpg.Pool[Any] | None = None

    async def publish(self, connection: Any, event: Any, message: Any = None, *, alone: bool = False) -> None:
        """Publish an event when the connection's transaction commits; nothing is sent if it rolls back.

        Raises `Error`: INVALID_ARGUMENT (no key, too large), FAILED_PRECONDITION (another owner's; outside a transaction, unless `alone`).
        """
        await self._hand_over(connection, self.made_event(event, message), alone=alone)

    async def send(self, connection: Any, operation: Any, request: Any, *, key: str | None = None, alone: bool = False) -> None:
        """Send a durable command when the transaction commits. The same `key` for the same operation is one effect."""
        await self._hand_over(connection, self.made_command(operation, request, key), alone=alone)

    async def _hand_over(self, connection: Any, message: Outgoing, *, alone: bool) -> None:
        if not hasattr(connection, "is_in_transaction"):
            raise SetupError(f"Outbox.publish was given a {type(connection).__name__}: give the asyncpg connection of the transaction.")
        if not alone and not connection.is_in_transaction():
            raise refuse_alone("connection")
        await connection.execute(POSTGRES.INSERT, *row_of(message))
        self.committed_soon()

    # --- what the mover asks (linkspan.handover.HandOver)

    async def open(self, wake: Callable[[], None]) -> None:
        """Make the table where it is missing."""
        database = self._database
        if isinstance(database, str):
            try:
                self._pool = await asyncpg.create_pool(database, min_size=0, max_size=2)
            except (OSError, asyncpg.PostgresError) as error:
                text = f"The database of the Outbox cannot be opened ({type(error).__name__}): start it, or correct its URL."
                raise SetupError(text) from error
        else:
            self._pool = database
        await self._pool.execute(POSTGRES.CREATE)
        self.opened(wake)

    async def committed(self, limit: int) -> list[tuple[int, Outgoing]]:
        """Return the first committed rows."""
        assert self._pool is not None  # noqa: S101 - opened before
        return [message_of(row) for row in await self._pool.fetch(POSTGRES.SELECT, limit)]

    async def remove(self, positions: Sequence[int]) -> None:
        """Delete rows that were moved."""
        assert self._pool is not None  # noqa: S101 - opened before
        await self._pool.execute(POSTGRES.DELETE, list(positions))

    async def aclose(self) -> None:
        """Close what is ours."""
        await super().aclose()
        pool, self._pool = self._pool, None
        if pool is not None and isinstance(self._database, str):
            await pool.close()
