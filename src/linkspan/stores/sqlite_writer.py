"""The one thread that writes to an SQLite file: recorded units in groups, interactive sessions in between, first come first served."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from linkspan.errors import Code, Error
from linkspan.ports import Outcome
from linkspan.stores.sqlite_errors import Absent, coded
from linkspan.stores.sqlite_file import QUERIES, Guard, SqliteLimits, connect, written
from linkspan.stores.sqlite_rows import Rows
from linkspan.stores.sqlite_sequences import Sequences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from linkspan.ports import Outgoing, Runtime, Unit, Value

__all__ = ["FORMAT", "Batch", "Job", "Queue", "Work", "Writer"]

FORMAT = 1
"""The version of what stored rows hold."""

# The comments keep these apart from a user's own words in the statement cache, where no one is asked whether they may.
_BEGIN = "begin immediate /* linkspan */"
_COMMIT = "commit /* linkspan */"
_ROLLBACK = "rollback /* linkspan */"
_SAVEPOINT = "savepoint linkspan_session"
_RELEASE = "release linkspan_session"
_ROLLBACK_TO = "rollback to linkspan_session"

_log = logging.getLogger("linkspan.store")

T = TypeVar("T")
V = TypeVar("V")
W = TypeVar("W")
Row = tuple[Any, ...]


class Queue(Protocol[V]):
    """What the writer needs of a queue: `queue.SimpleQueue` has it."""

    def put(self, item: V) -> None:
        """Add to the end."""
        ...

    def get(self, *, timeout: float | None = None) -> V:
        """Take the first, or wait for it. Raises `queue.Empty` after `timeout` seconds."""
        ...

    def get_nowait(self) -> V:
        """Take the first. Raises `queue.Empty`."""
        ...


class Work(Protocol):
    """Something for the writer to do when its turn comes."""

    def perform(self, writer: Writer) -> None:
        """Do it, in the writer's thread; never raise."""
        ...


@dataclass(slots=True, eq=False)
class Batch:
    """What one turn of the loop handed over: units, and outbox positions that the broker has."""

    units: list[Unit] = field(default_factory=list["Unit"])
    sent: list[int] = field(default_factory=list[int])

    def perform(self, writer: Writer) -> None:
        """Commit in groups."""
        writer.commit_batch(self)


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """A call that runs between groups and answers a future of the loop."""

    run: Callable[[], T]
    future: asyncio.Future[T]

    def perform(self, writer: Writer) -> None:
        """Call, and answer."""
        try:
            result = self.run()
        except Exception as error:  # noqa: BLE001 - the caller gets it
            writer.undo()
            writer.post(fail, self.future, error)
        else:
            writer.post(finish, self.future, result)


def finish(future: asyncio.Future[T], result: T) -> None:
    """Answer a future that may have been cancelled meanwhile."""
    if not future.done():
        future.set_result(result)


def fail(future: asyncio.Future[Any], error: BaseException) -> None:
    """Fail a future that may have been cancelled meanwhile."""
    if not future.done():
        future.set_exception(error)


class Writer:
    """Owns the writing connection. Everything but `start`, `put` and `call` runs in its thread.

    `settled(units, deleted, kept)` is called on the loop once per group: units in commit order, and the outbox
    positions that were deleted, or could not be.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        runtime: Runtime,
        limits: SqliteLimits,
        settled: Callable[[Sequence[Unit], Sequence[int], Sequence[int]], None],
    ) -> None:
        self.connection: sqlite3.Connection
        self.name = name
        self._path = path
        self.runtime = runtime
        self.limits = limits
        self._settled = settled
        self._guard = Guard()
        self._queue: Queue[Work | None] = self.new_queue()
        self._ahead: deque[Work | None] = deque()
        self._sequences = Sequences(limits.sequences)
        self._position = 0
        self._files: tuple[tuple[str, tuple[int, int]], ...] = ()
        self._loop: asyncio.AbstractEventLoop
        self._cursor: sqlite3.Cursor
        self._rows: Rows
        self._numbered: dict[tuple[str, str], int] = {}
        self.careful_until = 0.0
        self._ended: asyncio.Future[None]

    # --- on the loop

    def start(self) -> None:
        """Start the thread; its answers go to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self.start_thread(self._run)

    # Two seams for simulated time, where nothing runs in a thread.

    def start_thread(self, run: Callable[[], None]) -> None:
        """Run the writer's loop beside the event loop."""
        threading.Thread(target=run, name=f"linkspan-store-{self.name}", daemon=True).start()

    def new_queue(self) -> Queue[Any]:
        """Return a queue from the event loop to the writer."""
        return queue.SimpleQueue()

    def put(self, work: Work) -> None:
        """Queue work."""
        self._queue.put(work)

    async def call(self, run: Callable[[], T]) -> T:
        """Run something between groups and return its result."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Job(run, future))
        return await future

    async def stop(self) -> None:
        """Finish what is queued, close the connection, end the thread."""
        self._queue.put(None)
        await asyncio.shield(self._ended)

    # --- in the thread

    def _run(self) -> None:
        while (work := self._take()) is not None:
            work.perform(self)
        try:
            if hasattr(self, "connection"):
                self.connection.close()
        finally:
            self.post(finish, self._ended, None)

    def _take(self) -> Work | None:
        return self._ahead.popleft() if self._ahead else self._queue.get()

    def next_of(self, kind: type[W]) -> W | None:
        """Take the next work if it waits already and is of this kind."""
        ahead = self._ahead
        if not ahead:
            try:
                ahead.append(self._queue.get_nowait())
            except queue.Empty:
                return None
        work = ahead[0]
        if not isinstance(work, kind):
            return None
        ahead.popleft()
        return work

    def post(self, call: Callable[..., object], *args: Any) -> None:
        """Call on the loop; a loop that is gone has nobody who waits."""
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def connect(self, *, create: bool) -> sqlite3.Connection:
        """Open the connection."""
        self.connection = connect(self._path, self.limits, self._guard, create=create)
        self._cursor = self.connection.cursor()
        self._rows = Rows(self.connection, self._guard)
        return self.connection

    def ready(self) -> None:
        """Read where the outbox stands and which files must stay in place; our tables are there now."""
        row = self._cursor.execute(QUERIES["outbox_last"]).fetchone()
        self._position = row[0] if row else 0
        names = (str(self._path), f"{self._path}-wal")
        self._files = tuple((name, _identity(name)) for name in names if os.path.exists(name))  # noqa: PTH110 - per group

    def commit_batch(self, batch: Batch) -> None:
        """Join what else is waiting, then commit in groups of bounded size."""
        size = self.limits.group
        while len(batch.units) < size and not self._ahead:
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                break
            if isinstance(work, Batch):
                batch.units += work.units
                batch.sent += work.sent
            else:
                self._ahead.append(work)
        sent = batch.sent
        for start in range(0, max(len(batch.units), 1), size):
            self._group(batch.units[start : start + size], sent)
            sent = []

    def _group(self, units: list[Unit], sent: list[int]) -> None:
        """Commit units together, or each alone when that fails; then settle them, failed ones in their place."""
        kept: list[int] = []
        try:
            self._together(units, sent)
        except Absent as error:
            self.undo()
            kept = sent
            _refuse(units, error.error)
        except Exception as error:  # noqa: BLE001 - each unit gets its own
            self.undo()
            if len(units) == 1 and not sent:
                _refuse(units, coded(self.name, error))
            else:
                kept = self._singly(units, sent)
        self.post(self._settled, units, [] if kept else sent, kept)

    def _singly(self, units: list[Unit], sent: list[int]) -> list[int]:
        """Commit each unit alone, deletions first, which may make room; return the deletions that failed."""
        kept: list[int] = []
        if sent:
            try:
                self._together([], sent)
            except Exception:  # noqa: BLE001 - tried again with a later group
                self.undo()
                kept = sent
        for index, unit in enumerate(units):
            try:
                self._together([unit], [])
            except Absent as error:
                self.undo()
                _refuse(units[index:], error.error)
                break
            except Exception as error:  # noqa: BLE001 - the unit gets it
                self.undo()
                _refuse([unit], coded(self.name, error))
        return kept

    def _together(self, units: list[Unit], sent: list[int]) -> None:
        """One transaction: claims, statements, messages, deletions."""
        self.begin()
        fresh = self._claim(units)
        self.run_statements(statement for unit in fresh for statement in unit.statements)
        messages = [message for unit in fresh for message in unit.messages]
        numbers = self.write_messages(messages)
        if sent:
            self._delete(sent)
        self.commit(messages, numbers)
        if fresh is not units:
            for unit in units:
                unit.outcome = Outcome.DUPLICATE
        for unit in fresh:
            unit.outcome = Outcome.COMMITTED

    def _delete(self, sent: list[int]) -> None:
        """Delete outbox rows that the broker has."""
        self.runtime.reached("outbox.delete.before")
        for first, last in _runs(sent):
            self._cursor.execute(QUERIES["outbox_delete"], (first, last))
        self.runtime.reached("outbox.delete.after")

    # --- pieces of a transaction, for groups and sessions alike

    def begin(self) -> None:
        """Open a write transaction. Raises `Absent`: nobody could write now."""
        if self.connection.in_transaction:
            self.undo()
        try:
            self._ours(_BEGIN)
        except sqlite3.Error as error:
            raise Absent(coded(self.name, error)) from error

    def _ours(self, sql: str) -> None:
        """Run what users may not."""
        self._guard.ours = True
        try:
            self._cursor.execute(sql)
        finally:
            self._guard.ours = False

    def commit(self, messages: Sequence[Outgoing] = (), numbers: Sequence[int] = ()) -> None:
        """Commit, then tell messages their place. Raises `Absent` when the file is no longer where it was: a commit would be lost."""
        self._in_place()
        self.runtime.reached("store.commit.before")
        self._ours(_COMMIT)
        self.runtime.reached("store.commit.after")
        if messages:
            self._sequences.confirm()
            for position, (message, number) in enumerate(zip(messages, numbers, strict=True), self._position + 1):
                message.position = position
                message.sequence = number
            self._position += len(messages)

    def undo(self) -> None:
        """Roll back whatever is open; SQLite itself did so after some failures."""
        self._sequences.undo()
        if not hasattr(self, "connection") or not self.connection.in_transaction:
            return
        try:
            self._ours(_ROLLBACK)
        except sqlite3.Error:
            _log.exception("A rollback failed; it is tried again before the next transaction.", extra={"store": self.name})

    def begin_inner(self) -> None:
        """Mark a place in the open transaction that `undo_inner` goes back to."""
        self._numbered = self._sequences.pending
        self._ours(_SAVEPOINT)

    def end_inner(self) -> None:
        """Make what came after the mark part of the transaction."""
        self._ours(_RELEASE)

    def undo_inner(self) -> None:
        """Roll back what came after the mark. SQLite may have rolled back everything: see `connection.in_transaction`."""
        self._sequences.pending = self._numbered
        if self.connection.in_transaction:
            self._ours(_ROLLBACK_TO)
            self._ours(_RELEASE)

    def transact(self, run: Callable[[sqlite3.Cursor], T]) -> T:
        """Run something of our own in a transaction; undone when it fails."""
        try:
            self.begin()
            result = run(self._cursor)
            self.commit()
        except BaseException:
            self.undo()
            raise
        return result

    def transact_ours(self, run: Callable[[sqlite3.Cursor], T]) -> T:
        """Do the same, with coded failures."""
        try:
            return self.transact(run)
        except Exception as error:
            raise coded(self.name, error) from error

    def _claim(self, units: list[Unit]) -> list[Unit]:
        """Insert the inbox ids; return the units that are new, the same list when all are."""
        now = self.runtime.clock.now()
        claims = [(*unit.inbox, now) for unit in units if unit.inbox is not None]
        if not claims or self._claimed(claims):
            return units
        self.undo()  # which of them it was is only known one by one
        self.begin()
        return [unit for unit in units if unit.inbox is None or self.claim(unit.inbox, now)]

    def claim(self, inbox: tuple[str, str], now: float) -> bool:
        """Insert one inbox id; tell whether it is new."""
        return self._claimed([(*inbox, now)])

    def _claimed(self, claims: list[tuple[str, str, float]]) -> bool:
        """Insert inbox ids; tell whether all are new."""
        self.runtime.reached("inbox.claim.before")
        fresh = written(self._cursor, "claim", claims) == len(claims)
        self.runtime.reached("inbox.claim.after")
        return fresh

    def execute(self, sql: str, args: Sequence[Value]) -> list[Row]:
        """Run one statement of the user and return its rows."""
        return self._cursor.execute(sql, args).fetchall()

    def run_statements(self, statements: Iterable[tuple[str, Sequence[Value]]], following: str = "") -> None:
        """Run recorded statements in order; `following` is the user's statement that comes right after."""
        self._rows.run(statements, following)

    def write_messages(self, messages: Sequence[Outgoing], before: int = 0) -> list[int]:
        """Insert outbox rows behind the last committed one and `before` others of this transaction; return their sequence numbers."""
        if not messages:
            return []
        numbers = self._sequences.number(self._cursor, messages)
        now = self.runtime.clock.now()
        rows = [
            (position, FORMAT, now, m.topic, m.name, m.lane, m.id, m.key, number, m.headers, m.data)
            for position, (m, number) in enumerate(zip(messages, numbers, strict=True), self._position + before + 1)
        ]
        written(self._cursor, "outbox_add", rows)
        return numbers

    def _in_place(self) -> None:
        """Check that the files under their names are the ones that are open: SQLite writes on happily into deleted ones."""
        for name, identity in self._files:
            if _identity(name) != identity:
                raise Absent(
                    Error(Code.UNAVAILABLE, f"The file of store '{self.name}' was moved or replaced: put it back, or restart the service.")
                )


def _identity(name: str) -> tuple[int, int]:
    """Return what tells a file from another of the same name; (0, 0) when it is not there."""
    try:
        found = os.stat(name)  # noqa: PTH116 - once per group, and a Path costs more than the call
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _refuse(units: Iterable[Unit], error: Error) -> None:
    """Fail units; nothing of them was written."""
    for unit in units:
        unit.outcome = Outcome.FAILED
        unit.error = error


def _runs(positions: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Join positions to ranges without holes: a range is one statement."""
    ranges: list[tuple[int, int]] = []
    for position in sorted(positions):
        if ranges and position <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], position)
        else:
            ranges.append((position, position))
    return ranges
