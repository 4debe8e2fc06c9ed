"""An interactive transaction: asked on the loop, run in the writer's thread, which serves nothing else until it ends."""

from __future__ import annotations

import asyncio
import queue
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from linkspan.errors import Code, Error
from linkspan.ports import Outcome
from linkspan.stores.sqlite_errors import coded
from linkspan.stores.sqlite_reader import Interruptible
from linkspan.stores.sqlite_writer import fail, finish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from linkspan.ports import Unit, Value
    from linkspan.stores.sqlite_writer import Row, Writer

__all__ = ["SqliteSession"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Command:
    """One thing asked of the open transaction; `last` ends it."""

    run: Callable[[], Any]
    future: asyncio.Future[Any]
    last: bool = False


class SqliteSession:
    """Implements `linkspan.ports.Session`. A cancelled `execute` rolls back, so that the writer goes on without waiting for the caller."""

    def __init__(self, writer: Writer, unit: Unit, now: float, ended: Callable[[SqliteSession], None]) -> None:
        self._writer = writer
        self._unit = unit
        self._now = now
        self._ended = ended
        self._recorded = list(unit.statements)
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[bool] = self._loop.create_future()
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._statements = Interruptible()
        self._over = False
        self._broken = False

    # --- on the loop

    async def start(self) -> bool:
        """Wait for the writer and open; False when the inbox id is a duplicate."""
        self._writer.put(self)
        try:
            fresh = await self._opened
        except asyncio.CancelledError:
            self.abandon()
            raise
        except Error:
            self._end()
            raise
        del self._unit.statements[: len(self._recorded)]
        if not fresh:
            self._unit.outcome = Outcome.DUPLICATE
            self._end()
        return fresh

    async def execute(self, sql: str, args: Sequence[Value] = ()) -> list[Row]:
        """Run one statement now and return its rows."""
        self._usable()
        try:
            rows: list[Row] = await self._ask(lambda: self._interruptible(lambda: self._writer.execute(sql, args)))
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
        unit, statements, messages = self._unit, list(self._unit.statements), list(self._unit.messages)

        def write() -> None:
            writer = self._writer
            writer.run_statements(statements)
            writer.commit(messages, writer.write_messages(messages))
            unit.outcome = Outcome.COMMITTED
            writer.post(unit.settled, unit)

        self._end()
        await self._ask(write, last=True)

    async def rollback(self) -> None:
        """Undo everything."""
        if not self._over:
            self._end()
            await self._ask(self._writer.undo, last=True)

    def abandon(self) -> None:
        """Interrupt and roll back without waiting; for a caller that was cancelled and a store that closes."""
        if not self._over:
            self._end()
            self._statements.stop()
            self._commands.put(_Command(self._writer.undo, self._loop.create_future(), last=True))

    def _usable(self) -> None:
        if self._over or self._broken:
            raise Error(Code.FAILED_PRECONDITION, "The transaction has failed or ended: roll back and begin another.")

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._ended(self)

    async def _ask(self, run: Callable[[], Any], *, last: bool = False) -> Any:
        command = _Command(run, self._loop.create_future(), last)
        self._commands.put(command)
        return await command.future

    # --- in the writer's thread

    def perform(self, writer: Writer) -> None:
        """Open, then do as asked until the last command."""
        if self._over:  # given up while it waited for its turn
            gone = Error(Code.UNAVAILABLE, f"The store '{writer.name}' was closed before the transaction began: try again.")
            writer.post(fail, self._opened, gone)
            return
        try:
            fresh = self._open(writer)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            writer.undo()
            writer.post(fail, self._opened, coded(writer.name, error))
            return
        writer.post(finish, self._opened, fresh)
        while fresh:
            command = self._commands.get()
            try:
                writer.post(finish, command.future, command.run())
            except Exception as error:  # noqa: BLE001 - the caller gets it
                if command.last:
                    writer.undo()
                writer.post(fail, command.future, coded(writer.name, error))
            if command.last:
                return

    def _open(self, writer: Writer) -> bool:
        writer.begin()
        if self._unit.inbox is not None and not writer.claim(self._unit.inbox, self._now):
            writer.undo()
            return False
        self._interruptible(lambda: writer.run_statements(self._recorded))
        return True

    def _interruptible(self, call: Callable[[], T]) -> T:
        return self._statements.run(self._writer.connection, call)
