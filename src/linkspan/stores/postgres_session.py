"""An interactive transaction: a connection of its own, beside the groups and other sessions."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from linkspan.errors import Code, Error
from linkspan.ports import Outcome
from linkspan.stores.postgres_errors import coded, is_lost
from linkspan.stores.postgres_sql import QUERIES, translated
from linkspan.stores.postgres_steps import claimed, ended, mark_lets_in, place, write_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from linkspan.ports import Outgoing, Runtime, Unit, Value
    from linkspan.stores.postgres_place import Connection, PostgresLimits
    from linkspan.stores.postgres_pool import Pool
    from linkspan.stores.postgres_rows import Rows
    from linkspan.stores.postgres_steps import Numbers

__all__ = ["PostgresSession", "Surroundings"]

_log = logging.getLogger("linkspan.store")

Row = tuple[Any, ...]


class Surroundings:
    """What the sessions of a store share. `settle` is called with a unit that was committed; `sessions` are those that are open."""

    def __init__(
        self,
        name: str,
        pool: Pool,
        runtime: Runtime,
        limits: PostgresLimits,
        settle: Callable[[Unit], None],
        rows: Callable[[Connection], Rows],
    ) -> None:
        self.name = name
        self.pool = pool
        self.runtime = runtime
        self.limits = limits
        self.settle = settle
        self.rows = rows
        self.sessions: set[PostgresSession] = set()


class PostgresSession:
    """Implements `linkspan.ports.Session`. A cancelled `execute` rolls back without waiting for its caller."""

    def __init__(self, around: Surroundings, unit: Unit) -> None:
        self._around = around
        self._unit = unit
        self._connection: Connection | None = None
        self._broken = False
        self._over = False
        self._last: asyncio.Task[None] | None = None
        around.sessions.add(self)

    # --- the verbs

    async def start(self, sql: str, args: Sequence[Value]) -> list[Row] | None:
        """Begin, run what was recorded, then the statement; return its rows, None where the inbox keeps the unit out."""
        try:
            rows = await self._open(sql, args)
        except asyncio.CancelledError:
            self.abandon()
            raise
        except Exception as error:
            await self.rollback()
            raise coded(self._around.name, error) from error
        if rows is None:
            await self.rollback()
        return rows

    async def execute(self, sql: str, args: Sequence[Value] = ()) -> list[Row]:
        """Run one statement now and return its rows."""
        connection = self._usable()
        try:
            return [tuple(row) for row in await connection.fetch(translated(sql), *args)]
        except asyncio.CancelledError:
            self.abandon()
            raise
        except Exception as error:
            self._broken = True
            raise coded(self._around.name, error) from error

    async def commit(self) -> None:
        """Write the rest of the unit, commit, settle. Cancelling it does not undo it: the unit settles if it was committed."""
        if self._broken and not self._over:
            await self.rollback()
        connection = self._usable()
        self._over = True
        self._last = asyncio.get_running_loop().create_task(self._commit(connection))
        self._last.add_done_callback(_heard)
        await asyncio.shield(self._last)

    async def rollback(self) -> None:
        """Undo everything."""
        if not self._over:
            self._over = True
            await self._undo()

    def abandon(self) -> None:
        """Roll back without waiting, for a caller that was cancelled."""
        if not self._over:
            self._over = True
            self._last = asyncio.get_running_loop().create_task(self._undo())

    async def close(self) -> None:
        """End it with the store: roll back at once, or see the commit through."""
        if not self._over:
            self._over = True
            if self._connection is not None:
                self._connection.terminate()
            await self._undo()
        elif self._last is not None:
            await asyncio.wait([self._last], timeout=self._around.limits.closing)

    # --- how

    def _usable(self) -> Connection:
        if self._over or self._broken or self._connection is None:
            raise Error(Code.FAILED_PRECONDITION, "The transaction has failed or ended: roll back and begin another.")
        return self._connection

    async def _open(self, sql: str, args: Sequence[Value]) -> list[Row] | None:
        """Begin; return the rows of the first statement."""
        connection = await self._begin()
        unit = self._unit
        if unit.inbox is not None and not await claimed(connection, [unit.inbox], self._around.runtime):
            unit.outcome = Outcome.DUPLICATE
            return None
        recorded = len(unit.statements)
        if recorded:
            await self._around.rows(connection).run(unit.statements[:recorded])
        rows = [tuple(row) for row in await connection.fetch(translated(sql), *args)]
        del unit.statements[:recorded]
        return rows

    async def _begin(self) -> Connection:
        """Begin on a connection; on a new one where an idle one turns out to be dead."""
        pool = self._around.pool
        connection = await pool.take()
        try:
            await connection.execute("begin")
        except Exception as error:
            connection.terminate()
            pool.give(connection)
            if not is_lost(error):
                raise
            connection = await pool.take(fresh=True)
            self._connection = connection
            await connection.execute("begin")
        except BaseException:
            connection.terminate()
            pool.give(connection)
            raise
        self._connection = connection
        if self._over:  # the store was closed meanwhile
            raise Error(Code.UNAVAILABLE, f"The store '{self._around.name}' was closed before the transaction began: try again.")
        return connection

    async def _commit(self, connection: Connection) -> None:
        unit, runtime = self._unit, self._around.runtime
        messages = list(unit.messages)
        numbers: list[Numbers] = []
        committing = False
        try:
            if unit.statements:
                await self._around.rows(connection).run(unit.statements)
            await self._check_entrance(connection)
            numbers = await write_messages(connection, messages, runtime.clock.now())
            committing = True
            await ended(connection, runtime)
        except Exception as error:
            await self._undo()
            if not (committing and is_lost(error) and await self._came_true(messages, numbers)):
                raise coded(self._around.name, error) from error
        else:
            self._leave()
        place(messages, numbers)
        self._settle(Outcome.COMMITTED)

    def _settle(self, outcome: Outcome) -> None:
        self._unit.outcome = outcome
        self._around.settle(self._unit)

    async def _check_entrance(self, connection: Connection) -> None:
        """Hold the fence and move the mark. Only now: a handler that is paused keeps nobody from taking its lane."""
        unit = self._unit
        holds, moved = await self._entered(connection, unit)
        if not holds:
            unit.outcome = Outcome.MOVED
            raise Error(Code.ABORTED, "The lane was taken by another instance meanwhile: it handles the message.")
        if moved:
            return
        refused = await mark_lets_in(connection, unit)
        if refused is not None:
            unit.outcome = refused
            raise Error(Code.ABORTED, f"The key's mark does not let the message in ({refused.value}): it was handled, or comes too early.")

    async def _entered(self, connection: Connection, unit: Unit) -> tuple[bool, bool]:
        """Tell whether the lane is ours, and whether the mark was moved with that: it is where the message is the next of its key.

        The lane cannot be taken then until the commit, but not for long when this process stands still.
        """
        if unit.fence is None:
            return True, False
        idle = str(round(self._around.limits.idle * 1000))
        if unit.mark is None:
            row = await connection.fetchrow(QUERIES["fence_hold"], *unit.fence[:2], idle)
            return row is not None and row[0] == unit.fence[2], False
        row = await connection.fetchrow(QUERIES["entrance"], *unit.fence[:2], idle, unit.fence[2], *unit.mark)
        return row is not None and bool(row[0]), row is not None and row[1]

    async def _came_true(self, messages: Sequence[Outgoing], numbers: Sequence[Numbers]) -> bool:
        """Tell whether a commit whose answer was lost was made: the inbox claim says, else the first message's row or number.

        Raises `Error` when neither does, or nobody answers.
        """
        around, loop = self._around, asyncio.get_running_loop()
        until = loop.time() + around.limits.unknown
        while loop.time() < until and (self._unit.inbox or messages):
            try:
                connection = await around.pool.take(fresh=True)
                try:
                    found = await self._looked(connection, messages, numbers)
                finally:
                    connection.terminate()
                    around.pool.give(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, the answer is not known yet
                _log.warning("Asking after a commit failed; will try again.", extra={"store": around.name, "error": type(error).__name__})
                await around.runtime.clock.sleep(0.3)
            else:
                if found is not None:
                    return found
                break
        raise Error(
            Code.UNAVAILABLE, f"The store '{around.name}' went away during a commit, which may have been made: look before trying again."
        )

    async def _looked(self, connection: Connection, messages: Sequence[Outgoing], numbers: Sequence[Numbers]) -> bool | None:
        """Look whether the commit was made; None where what is there allows both."""
        if self._unit.inbox is not None:
            await connection.execute("begin")
            return not await claimed(connection, [self._unit.inbox], self._around.runtime)  # waits for the lost transaction
        message, (position, sequence) = messages[0], numbers[0]
        last = await connection.fetchval(QUERIES["sequence_seen"], message.topic, message.key)  # the same
        if await connection.fetchval(QUERIES["outbox_row"], message.lane, position):
            return True
        return False if last is None or last < sequence else None

    def _leave(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._around.pool.give(connection)
        self._around.sessions.discard(self)

    async def _undo(self) -> None:
        """Roll back; a connection that cannot is ended, and its server undoes it."""
        try:
            if self._connection is not None and self._connection.is_in_transaction():
                await self._connection.execute("rollback")
        except Exception:  # noqa: BLE001 - undone all the same
            if self._connection is not None:
                self._connection.terminate()
        finally:
            self._leave()


def _heard(task: asyncio.Task[None]) -> None:
    """Take an error that a cancelled caller will not hear."""
    if not task.cancelled():
        task.exception()
