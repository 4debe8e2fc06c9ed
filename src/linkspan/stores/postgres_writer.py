"""The one connection that commits recorded units, in groups: while one group is under way, the next gathers.

A group that fails is cut in halves, each tried again, until the unit that is to blame stands alone: order stays, and one unit's error
costs the others little. A commit whose answer was lost is neither done nor undone for us until the database says which: each group
sets `commits` of this process' row in its own transaction, and the row tells, once the lost transaction has let go of it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from linkspan.errors import Code, Error
from linkspan.ports import Outcome
from linkspan.stores.postgres_errors import coded, is_collision, is_lost
from linkspan.stores.postgres_rows import Known, Rows
from linkspan.stores.postgres_sql import QUERIES
from linkspan.stores.postgres_steps import Judged, Overtaken, ended, judged, move_marks, place, write_messages
from linkspan.stores.postgres_whole import places_found, whole_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from linkspan.ports import Outgoing, Runtime, Unit
    from linkspan.stores.postgres_place import Connection, PostgresLimits
    from linkspan.stores.postgres_steps import Numbers

    Settled = Callable[[Sequence[Unit], Sequence[Outgoing], Sequence[Outgoing]], None]

__all__ = ["Writer"]

_log = logging.getLogger("linkspan.store")

PAUSES = (0.0, 0.05, 0.3, 1.0)
"""Seconds before the first and each further attempt, after a lost connection or a collision with another transaction."""


class _Group:
    """One attempt: units and deletions, and what is to be told once they are committed. `number` is set as the commit begins."""

    __slots__ = ("judged", "messages", "number", "numbers", "sent", "units")

    def __init__(self, units: Sequence[Unit], sent: Sequence[Outgoing]) -> None:
        self.units = units
        self.sent = sent
        self.number = 0
        self.judged = Judged()
        self.messages: list[Outgoing] = []
        self.numbers: list[Numbers] = []

    async def write(self, connection: Connection, rows: Rows, runtime: Runtime) -> None:
        """Do everything between begin and commit."""
        found = self.judged = await judged(connection, self.units, runtime)
        await rows.run(statement for unit in found.fresh for statement in unit.statements)
        if self.sent:
            await self._delete(connection, runtime)
        await move_marks(connection, found.moves)
        self.messages = [message for unit in found.fresh for message in unit.messages]
        self.numbers = await write_messages(connection, self.messages, runtime.clock.now())

    async def _delete(self, connection: Connection, runtime: Runtime) -> None:
        """Delete outbox rows that the broker has, in one order."""
        gone = sorted((message.lane, message.position) for message in self.sent)
        runtime.reached("outbox.delete.before")
        await connection.execute(QUERIES["outbox_delete"], [lane for lane, _ in gone], [position for _, position in gone])
        runtime.reached("outbox.delete.after")

    def true(self) -> None:
        """Tell units and messages what came of them."""
        for unit in self.judged.fresh:
            unit.outcome = Outcome.COMMITTED
        for unit, outcome in self.judged.others:
            unit.outcome = outcome
        place(self.messages, self.numbers)


class Writer:
    """Commits units in groups, in the order of submission.

    `settled(units, deleted, kept)` is called once per group: units in commit order, and the outbox rows that were deleted, or could
    not be. `connect` opens a connection that holds the lock of this process' row.
    """

    def __init__(
        self, name: str, runtime: Runtime, limits: PostgresLimits, connect: Callable[[], Awaitable[Connection]], settled: Settled
    ) -> None:
        self._name = name
        self._runtime = runtime
        self._limits = limits
        self._connect = connect
        self._settled = settled
        self._units: list[Unit] = []
        self._sent: list[Outgoing] = []
        self._wake: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._rows: Rows
        self._known = Known()
        self._process = 0
        self._number = 0
        self._closing = False

    def start(self, connection: Connection, process: int) -> None:
        """Begin to commit for the process with this row."""
        self._use(connection)
        self._process = process
        self._task = asyncio.get_running_loop().create_task(self._run())

    def put(self, units: Sequence[Unit] = (), sent: Sequence[Outgoing] = ()) -> None:
        """Queue units, and outbox rows that the broker has."""
        self._units += units
        self._sent += sent
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def stop(self) -> Connection | None:
        """Finish what is queued; return the connection if it is open, for the last words."""
        self._closing = True
        self.put()
        if self._task is not None:
            await self._task
        connection = self._connection
        return connection if connection is not None and not connection.is_closed() else None

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        size = self._limits.group
        while True:
            if not self._units and not self._sent:
                if self._closing:
                    return
                self._wake = loop.create_future()
                await self._wake
            units, self._units = self._units[:size], self._units[size:]
            sent, self._sent = self._sent, []
            if units or sent:
                await self._group(units, sent)

    async def _group(self, units: list[Unit], sent: list[Outgoing]) -> None:
        """Commit units and deletions together, else deletions first, which may make room; then settle the units in order."""
        kept: list[Outgoing] = []
        error = await self._attempt(units, sent)
        if error is not None:
            if sent:
                kept = sent if not units or _hopeless(error) or await self._attempt([], sent) is not None else []
            await self._apart(units, error)
        self._settled(units, [] if kept else sent, kept)

    async def _apart(self, units: list[Unit], error: Exception) -> None:
        """Try the halves of what failed together; a unit that fails alone has its error, and so has each when nothing can be written."""
        if len(units) < 2 or _hopeless(error):  # noqa: PLR2004 - one has no halves
            for unit in units:
                unit.outcome, unit.error = Outcome.FAILED, coded(self._name, error)
            return
        half = len(units) // 2
        for part in (units[:half], units[half:]):
            failed = await self._attempt(part, [])
            if failed is not None:
                await self._apart(part, failed)

    async def _attempt(self, units: list[Unit], sent: list[Outgoing]) -> Exception | None:
        """Commit together, again where the connection was lost or others were in the way; return why it cannot be."""
        error: Exception | None = None
        for pause in PAUSES:
            if pause:
                await self._runtime.clock.sleep(pause)
            group = _Group(units, sent)
            try:
                if await self._performed(group):
                    group.true()
                    return None
            except Exception as failure:  # noqa: BLE001 - the units get it
                error = failure
                if not is_lost(failure) and not is_collision(failure) and not isinstance(failure, Overtaken):
                    break
        return error

    async def _performed(self, group: _Group) -> bool:
        """Run one transaction; tell whether it came true. Raises what failed, with nothing written; `Error` when that is not known."""
        try:
            connection = await self._connected()
            if await self._at_once(connection, group):
                return True
            number = self._number + 1
            await connection.execute(f"begin; update linkspan_process set commits = {number} where id = {self._process}")  # noqa: S608 - our own numbers
            await group.write(connection, self._rows, self._runtime)
            group.number = self._number = number
            await ended(connection, self._runtime)
        except Exception as error:
            if not is_lost(error):
                await self._undo()
                raise
            self._drop()
            if not group.number or not await self._came_true(group):
                raise
        return True

    async def _at_once(self, connection: Connection, group: _Group) -> bool:
        """Commit as one statement; False, with nothing done, where there is more to do than one can."""
        if group.sent:
            return False
        messages = [message for unit in group.units for message in unit.messages]
        whole = await whole_of(group.units, messages, self._rows, self._known)
        if whole is None:
            return False
        group.judged.fresh, group.messages = list(group.units), messages
        self._runtime.reached("store.commit.before")
        group.number = self._number = self._number + 1
        try:
            group.numbers = await whole.run(connection, number=group.number, process=self._process, now=self._runtime.clock.now())
        except Exception:
            self._known.forget()
            raise
        self._runtime.reached("store.commit.after")
        return True

    async def _came_true(self, group: _Group) -> bool:
        """Tell whether a commit whose answer was lost was made: it is decided once we have its lock. Raises `Error` when it cannot."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.unknown
        while loop.time() < until:
            try:
                connection = await self._connected()
                commits = await connection.fetchval("select commits from linkspan_process where id = $1 for update", self._process)
                true = commits is not None and commits >= group.number
                if true and len(group.numbers) < len(group.messages):
                    group.numbers = await places_found(connection, group.messages)
            except Exception as error:  # noqa: BLE001 - whatever it is, the answer is not known yet
                _log.warning(
                    "Asking after a commit failed; will try again.", extra={"store": self._name, "code": coded(self._name, error).code}
                )
                self._drop()
                await self._runtime.clock.sleep(PAUSES[2])
            else:
                return true
        raise Error(
            Code.UNAVAILABLE, f"The store '{self._name}' went away during a commit, which may have been made: look before trying again."
        )

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._use(await self._connect())
        assert self._connection is not None  # noqa: S101 - just made
        return self._connection

    def _use(self, connection: Connection) -> None:
        self._connection = connection
        self._rows = Rows(connection, self._known)

    async def _undo(self) -> None:
        """Roll back; a connection that cannot is given up."""
        try:
            if self._connection is not None and self._connection.is_in_transaction():
                await self._connection.execute("rollback")
        except Exception:  # noqa: BLE001 - the server undoes it when the connection ends
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _hopeless(error: Exception) -> bool:
    """Tell whether no unit is to blame: nothing can be written now, or nobody knows what was."""
    return is_lost(error) or isinstance(error, Error)
