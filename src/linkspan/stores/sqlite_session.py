"""An interactive transaction: asked on the loop, run in the writer's thread, which serves nothing else until it ends."""

from __future__ import annotations

import asyncio
import queue
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from linkspan.errors import Code, Error
from linkspan.ports import Outcome
from linkspan.stores.sqlite_errors import coded
from linkspan.stores.sqlite_reader import Interruptible
from linkspan.stores.sqlite_shared import SharedCommit
from linkspan.stores.sqlite_writer import fail, finish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from linkspan.ports import Outgoing, Unit, Value
    from linkspan.stores.sqlite_writer import Queue, Row, Writer

    Statement: TypeAlias = tuple[str, Sequence[Value]]

__all__ = ["SqliteSession"]


@dataclass(slots=True, eq=False)
class _Command:
    """One thing asked of the open transaction: a statement, or its end, which keeps the work or, without, undoes it."""

    future: asyncio.Future[Any]
    statement: Statement | None = None
    keep: bool = False
    statements: list[Statement] = field(default_factory=list["Statement"])
    messages: list[Outgoing] = field(default_factory=list["Outgoing"])


class SqliteSession:
    """Implements `linkspan.ports.Session`. A cancelled `execute` rolls back, so that the writer goes on without waiting for the caller."""

    def __init__(self, writer: Writer, unit: Unit, first: Statement, ended: Callable[[SqliteSession], None]) -> None:
        self._writer = writer
        self._unit = unit
        self._first = first
        self._ended = ended
        self._recorded = list(unit.statements)
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[list[Row] | None] = self._loop.create_future()
        self._commands: Queue[_Command] = writer.new_queue()
        self._interruptible = Interruptible()
        self._over = False
        self._broken = False
        # The thread's own.
        self._seen: list[tuple[Statement, list[Row]]] = []
        self._failed: Error | None = None
        self._unseen: Error | None = None

    # --- on the loop

    async def start(self) -> list[Row] | None:
        """Wait for the writer, open, and return the rows of the first statement; None when the inbox id is a duplicate."""
        self._writer.put(self)
        try:
            rows = await self._opened
        except asyncio.CancelledError:
            self.abandon()
            raise
        except Error:
            self._end()
            raise
        if rows is None:
            self._unit.outcome = Outcome.DUPLICATE
            self._end()
            return None
        del self._unit.statements[: len(self._recorded)]
        return rows

    async def execute(self, sql: str, args: Sequence[Value] = ()) -> list[Row]:
        """Run one statement now and return its rows."""
        self._usable()
        try:
            rows: list[Row] = await self._ask(_Command(self._loop.create_future(), (sql, args)))
        except asyncio.CancelledError:
            self.abandon()
            raise
        except Error:
            self._broken = True
            raise
        return rows

    async def commit(self) -> None:
        """Write the rest of the unit, commit, settle. Cancelling it does not undo it: the unit settles if it was committed."""
        if self._broken and not self._over:
            await self.rollback()
        self._usable()
        self._end()
        unit = self._unit
        future = self._loop.create_future()
        await self._ask(_Command(future, keep=True, statements=list(unit.statements), messages=list(unit.messages)))

    async def rollback(self) -> None:
        """Undo everything."""
        if not self._over:
            self._end()
            await self._ask(_Command(self._loop.create_future()))

    def abandon(self) -> None:
        """Interrupt and roll back without waiting; for a caller that was cancelled and a store that closes."""
        if not self._over:
            self._end()
            self._interruptible.stop()
            nobody: asyncio.Future[Any] = self._loop.create_future()
            nobody.cancel()
            self._commands.put(_Command(nobody))

    def _usable(self) -> None:
        if self._over or self._broken:
            raise _ended()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._ended(self)

    async def _ask(self, command: _Command) -> Any:
        self._commands.put(command)
        return await command.future

    # --- in the writer's thread

    def perform(self, writer: Writer) -> None:
        """Open, do as asked until the end, and so on with those that wait behind; then commit for all of them."""
        shared = SharedCommit(writer)
        session: SqliteSession | None = self
        while session is not None:
            session.take_turn(shared)
            session = writer.next_of(SqliteSession) if shared.may_grow else None
        shared.commit()

    def take_turn(self, shared: SharedCommit) -> None:
        """Open and do as asked until the end."""
        if self._over:  # given up while it waited for its turn
            gone = Error(Code.UNAVAILABLE, f"The store '{self._writer.name}' was closed before the transaction began: try again.")
            self._writer.post(fail, self._opened, gone)
            return
        try:
            rows = self._open(shared)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            shared.undo()
            shared.answer(self._opened, coded(self._writer.name, error))
            return
        if rows is None:
            shared.undo()
            shared.answer(self._opened)
            return
        self._writer.post(finish, self._opened, rows)
        while (command := self._next(shared)).statement is not None:
            self._execute(shared, command.statement, command.future)
        if command.keep:
            self._keep(shared, command)
        else:
            shared.undo()
            shared.answer(command.future, self._unseen)

    def _open(self, shared: SharedCommit) -> list[Row] | None:
        """Begin; return the rows of the first statement, None for a duplicate."""
        writer, unit = self._writer, self._unit
        shared.open()
        if unit.inbox is not None and not writer.claim(unit.inbox, writer.runtime.clock.now()):
            return None
        if self._recorded:
            self._interruptible.run(writer.connection, self._run_recorded)
        return self._run(self._first)

    def _run_recorded(self) -> None:
        self._writer.run_statements(self._recorded, self._first[0])

    def _run(self, statement: Statement) -> list[Row]:
        rows = self._interruptible.run(self._writer.connection, lambda: self._writer.execute(*statement))
        self._seen.append((statement, list(rows)))
        return rows

    def _next(self, shared: SharedCommit) -> _Command:
        """Wait for what comes next; not longer than those before can wait."""
        try:
            return self._commands.get(timeout=shared.patience)
        except queue.Empty:
            self._part(shared)
            return self._commands.get()

    def _part(self, shared: SharedCommit) -> None:
        """Commit for those before, who might be what this session's caller waits for, and begin again alone, seeing the same."""
        shared.undo()
        committed = shared.commit()
        if self._failed is not None:
            if not committed:
                self._unseen = self._other()
            return
        seen, self._seen = self._seen, []
        try:
            rows = self._open(shared)
            same = rows == seen[0][1] and all(self._run(statement) == before for statement, before in seen[1:])
        except Exception:  # noqa: BLE001 - it did not fail before, so what it saw has changed
            same = False
        if not same:
            shared.undo()
            self._failed = self._unseen = self._other()

    def _other(self) -> Error:
        return Error(Code.UNAVAILABLE, f"A transaction of store '{self._writer.name}' saw what did not come true: try again.")

    def _execute(self, shared: SharedCommit, statement: Statement, future: asyncio.Future[Any]) -> None:
        try:
            self._check()
            rows = self._run(statement)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            self._failed = coded(self._writer.name, error)
            shared.check()
            self._writer.post(fail, future, self._failed)
        else:
            self._writer.post(finish, future, rows)

    def _check(self) -> None:
        """Refuse after a failure: nothing may be open then, and a statement would be written at once."""
        if self._failed is not None:
            raise self._unseen or _ended()

    def _keep(self, shared: SharedCommit, command: _Command) -> None:
        try:
            self._check()
            self._writer.run_statements(command.statements)
            shared.keep(self._unit, command.messages, command.future)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            shared.undo()
            shared.answer(command.future, coded(self._writer.name, error))


def _ended() -> Error:
    return Error(Code.FAILED_PRECONDITION, "The transaction has failed or ended: roll back and begin another.")
