"""The embedded store: one SQLite file per service, WAL and FULL, group commit in a writer thread, reads beside it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Outcome, Outgoing, Tenure
from linkspan.stores import sqlite_letters, sqlite_scheduled
from linkspan.stores.rows import letter_of, scheduled_of
from linkspan.stores.sqlite_attest import durability
from linkspan.stores.sqlite_errors import Absent, coded
from linkspan.stores.sqlite_file import (
    OLDEST,
    QUERIES,
    FileLock,
    SqliteLimits,
    check_format,
    migrate_own,
    migrate_user,
    own_format,
)
from linkspan.stores.sqlite_reader import Readers
from linkspan.stores.sqlite_session import SqliteSession
from linkspan.stores.sqlite_writer import Batch, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence
    from pathlib import Path

    from linkspan.ports import Durability, Letter, LetterState, Runtime, Scheduled, Session, Timer, Unit, Value
    from linkspan.stores.sqlite_writer import Row

__all__ = ["SqliteLimits", "SqliteStore"]

T = TypeVar("T")

_ALL_LANES = Tenure(dict.fromkeys(range(64), 0), 64, 1)


class SqliteStore:
    """Implements `linkspan.ports.Store` on one SQLite file.

    With `exclusive=False` it stands beside the service that owns the file, for the command line: no lock, no
    migrations; reads, `redrive`, `discard` and `forget` work, `submit`, `begin` and `migrate` are refused.
    """

    writer_kind: type[Writer] = Writer

    def __init__(self, path: Path, *, name: str, runtime: Runtime, exclusive: bool = True, limits: SqliteLimits | None = None) -> None:
        self.name = name
        self.path = path
        self._runtime = runtime
        self._exclusive = exclusive
        self._limits = limits or SqliteLimits()
        self._lock = FileLock(path)
        self._writer = self.writer_kind(path, name, runtime, self._limits, self._settle)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[Unit] = []
        self._sent: list[int] = []
        self._gone: set[int] = set()
        self._late: list[int] = []
        self._looking = 0
        self._timer: Timer | None = None
        self._sessions: set[SqliteSession] = set()
        self._readers = Readers(path, name, self._limits)
        self._state = "new"
        self._closed: asyncio.Future[None] | None = None

    @property
    def shared(self) -> bool:
        """Tell that one process has it."""
        return False

    @property
    def crashed(self) -> bool:
        """Tell whether the last owner ended without `aclose`."""
        return self._lock.abandoned

    # --- life

    async def open(self) -> None:
        """Open the file, migrate our tables, take the lock."""
        if self._state != "new":
            raise SetupError(f"The store '{self.name}' was opened before: make a new one.")
        if sqlite3.sqlite_version_info < OLDEST:
            raise SetupError(f"SQLite {sqlite3.sqlite_version} is too old: use a Python with {'.'.join(map(str, OLDEST))} or newer.")
        self._state = "opening"
        self._loop = asyncio.get_running_loop()
        self._writer.start()
        try:
            await self._writer.call(self._open)
        except BaseException as error:
            await self._shut()
            if isinstance(error, (sqlite3.Error, Absent, OSError)):
                raise coded(self.name, error) from error
            raise
        self._state = "open"

    def _open(self) -> None:
        """Open in the writer's thread."""
        if not self._exclusive:
            if not self.path.exists():
                raise SetupError(f"There is no store at '{self.path}': run the service once, or correct the path.")
            if own_format(self._writer.connect(create=False)) != check_format(0, self.path):
                check_format(own_format(self._writer.connection), self.path)
                raise SetupError(f"The store '{self.path.name}' has an older format: start its service once with this linkspan.")
        else:
            self._lock.take()
            migrate_own(self._writer.connect(create=True), self.path, self._writer.transact)
        self._writer.ready()

    async def aclose(self) -> None:
        """Commit what was submitted, roll back open sessions, delete what was sent, close."""
        if self._closed is None:
            self._closed = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closed)

    async def _close(self) -> None:
        was, self._state = self._state, "closed"
        if was != "open":
            return
        for session in list(self._sessions):
            session.abandon()
        self._hand_over()
        await self._shut(in_order=True)

    async def _shut(self, *, in_order: bool = False) -> None:
        """End the threads, free the lock."""
        self._state = "closed"
        await self._writer.stop()
        await self._readers.aclose()
        self._lock.free(in_order=in_order)

    async def migrate(self, scripts: Sequence[tuple[str, str]]) -> None:
        """Apply the user's new scripts."""
        self._owned()
        writer, now = self._writer, self._runtime.clock.now
        try:
            await writer.call(lambda: migrate_user(writer.connection, list(scripts), writer.transact, now))
        except (sqlite3.Error, Absent) as error:
            raise coded(self.name, error) from error

    async def attest(self) -> Durability:
        """Say what a commit is worth, by the settings of the writing connection."""
        self._opened()
        return await self._writer.call(lambda: durability(self._writer.connection, self.path))

    # --- writing

    def submit(self, unit: Unit) -> None:
        """Queue a unit; all of one turn of the loop go to the writer together."""
        loop = self._loop
        if loop is None or not self._exclusive or self._state != "open":
            self._turn_away(unit)
            return
        waiting = self._waiting
        if not waiting:
            loop.call_soon(self._hand_over)
        waiting.append(unit)

    def _turn_away(self, unit: Unit) -> None:
        """Settle a unit that comes before `open` or after `aclose`."""
        unit.outcome = Outcome.FAILED
        unit.error = Error(Code.UNAVAILABLE, f"The store '{self.name}' is not open for writing: open it first.")
        asyncio.get_running_loop().call_soon(unit.settled, unit)

    def _hand_over(self) -> None:
        """Give the writer what has gathered."""
        if not self._waiting and not self._sent:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._writer.put(Batch(self._waiting, self._sent))
        self._waiting, self._sent = [], []

    def _settle(self, units: Sequence[Unit], deleted: Sequence[int], kept: Sequence[int]) -> None:
        """Tell the units of a group how they ended."""
        for unit in units:
            try:
                unit.settled(unit)
            except Exception as error:  # noqa: BLE001 - one caller must not lose the others their answers
                asyncio.get_running_loop().call_exception_handler({"message": "A unit's settled callback failed.", "exception": error})
        if deleted:
            self._late.extend(deleted)
            self._forget_deleted()
        if kept:
            self._sent.extend(kept)
            if self._state == "open":
                self._set_timer()

    async def begin(self, unit: Unit, sql: str, args: Sequence[Value] = ()) -> tuple[Session, list[Row]] | None:
        """Open an interactive transaction with its first statement when its turn comes; None when the inbox id is a duplicate."""
        self._owned()
        self._hand_over()
        session = SqliteSession(self._writer, unit, (sql, args), self._sessions.discard)
        self._sessions.add(session)
        rows = await session.start()
        return None if rows is None else (session, rows)

    # --- reading

    async def read(self, sql: str, args: Sequence[Value] = ()) -> list[Row]:
        """Run one statement on a committed snapshot in a reader thread."""
        self._opened()
        return await self._readers.read(sql, args)

    def _opened(self) -> None:
        if self._state != "open":
            raise Error(Code.UNAVAILABLE, f"The store '{self.name}' is not open: open it first.")

    def _owned(self) -> None:
        self._opened()
        if not self._exclusive:
            raise Error(
                Code.FAILED_PRECONDITION, f"The store '{self.name}' belongs to a running service: only letters can be changed here."
            )

    # --- outbox

    async def hold_lanes(self, service: str, instance: str, *, keep: Collection[int] | None, lease: float) -> Tenure:  # noqa: ARG002 - it is alone
        """Give all lanes to the only instance there can be."""
        return _ALL_LANES

    async def leave_lanes(self, service: str, instance: str) -> None:
        """Do nothing: the file's lock is what is given back."""

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Do nothing: no other process writes."""

    async def unsent(self, after: int, limit: int, lanes: Collection[int] | None = None) -> list[Outgoing]:
        """Return outbox rows above a position, without those that `sent` has named."""
        found: list[Outgoing] = []
        with self._look():
            while len(found) < limit:
                rows = await self.read(QUERIES["outbox_unsent"], (after, limit))
                found += [Outgoing(*row) for row in rows if row[-1] not in self._gone]
                if len(rows) < limit:
                    break
                after = rows[-1][-1]
            found = [message for message in found if message.position not in self._gone]  # one page may have ended meanwhile
        return [message for message in found[:limit] if lanes is None or message.lane in lanes]

    def deleting(self, position: int) -> bool:
        """Tell whether a row is only waiting for its deletion."""
        return position in self._gone

    @contextmanager
    def _look(self) -> Generator[None]:
        """Keep in mind what is deleted meanwhile: a snapshot taken before still shows it."""
        self._looking += 1
        try:
            yield
        finally:
            self._looking -= 1
            self._forget_deleted()

    def _forget_deleted(self) -> None:
        if not self._looking:
            self._gone.difference_update(self._late)
            self._late.clear()

    def sent(self, messages: Sequence[Outgoing]) -> None:
        """Delete rows with the next group, after 256 of them, or 50 ms, whatever comes first."""
        if self._state != "open":
            return
        positions = [message.position for message in messages if message.position and message.position not in self._gone]
        self._gone.update(positions)
        self._sent += positions
        if len(self._sent) >= self._limits.sent_rows:
            self._hand_over()
        elif self._sent:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is None:
            self._timer = self._runtime.clock.call_later(self._limits.sent_delay, self._sent_waited)

    def _sent_waited(self) -> None:
        self._timer = None
        if self._state == "open":
            self._hand_over()

    async def depth(self) -> tuple[int, float]:
        """Return how many rows wait and the age of the oldest, without those that `sent` has named."""
        with self._look():
            ((count,),) = await self.read(QUERIES["outbox_depth"])
            rows = await self.read(QUERIES["outbox_times"], (len(self._gone) + 1,))
            waiting = [at for position, at in rows if position not in self._gone]
        if not waiting:
            return 0, 0.0
        return count - (len(rows) - len(waiting)), max(self._runtime.clock.now() - waiting[0], 0.0)

    # --- scheduled messages

    def add_scheduled(self, unit: Unit, message: Outgoing, due: float, source: str) -> None:
        """Keep a message until it is due, with the unit."""
        unit.statements.append(sqlite_scheduled.added(message, due, source, self._runtime.clock.now()))

    cancelling = staticmethod(sqlite_scheduled.cancelling)
    taking = staticmethod(sqlite_scheduled.taking)
    taken = staticmethod(scheduled_of)

    async def next_due(self) -> float | None:
        """Return the earliest due time."""
        return (await self.read(QUERIES["scheduled_next"]))[0][0]  # type: ignore[no-any-return]  # what SQLite holds

    async def scheduled(self, source: str = "", *, after: tuple[float, int] = (0.0, 0), limit: int = 100) -> list[Scheduled]:
        """Return what is scheduled, earliest first."""
        return self.taken(await self.read(*sqlite_scheduled.listed(source, after, limit)))

    async def cancel_scheduled(self, position: int, source: str, *, who: str, why: str, at: float) -> bool:
        """Cancel a message by its row."""
        return await self._write(sqlite_scheduled.ending(position, source, (at, who, why)))

    # --- letters

    def add_letter(self, unit: Unit, letter: Letter) -> None:
        """Add a letter with the unit."""
        unit.statements.append(sqlite_letters.added(letter))

    def update_letter(self, unit: Unit, letter: Letter) -> None:
        """Store how a letter stands with the unit."""
        unit.statements.append(sqlite_letters.changed(letter))

    def expire_letter(self, unit: Unit, position: int, *, who: str, at: float) -> None:
        """Remove a letter past its expiry with the unit, audited."""
        unit.statements += sqlite_letters.expired(position, who, at)

    def remove_letter(self, unit: Unit, position: int) -> None:
        """Remove a letter with the unit."""
        unit.statements.append(sqlite_letters.removed(position))

    async def held_keys(self, lanes: Collection[int] | None = None) -> set[tuple[str, str]]:
        """Return the `(topic, key)` pairs that have letters."""
        del lanes  # one process has them all
        return {(topic, key) for topic, key in await self.read(QUERIES["letter_keys"])}

    async def heads(self, now: float, limit: int, lanes: Collection[int] | None = None) -> list[Letter]:
        """Return the first letters that may run."""
        del lanes  # one process has them all
        return await self._letters(*sqlite_letters.heads(now, limit))

    async def due_letters(self, service: str, now: float, limit: int, lanes: Collection[int] | None = None) -> list[tuple[str, str, int]]:
        """Return the first letters that are due or redriven."""
        del lanes  # one process has them all
        return [(topic, key, position) for topic, key, position in await self.read(*sqlite_letters.due(service, now, limit))]

    async def next_letter(self, topic: str, key: str) -> Letter | None:
        """Return a key's first letter."""
        return next(iter(await self._letters(*sqlite_letters.first_of(topic, key))), None)

    async def letters(self, *, states: Sequence[LetterState] = (), after: int = 0, limit: int = 100) -> list[Letter]:
        """Return letters in position order."""
        return await self._letters(*sqlite_letters.letters(states, after, limit))

    async def letter(self, position: int) -> Letter | None:
        """Return one letter."""
        return next(iter(await self._letters(*sqlite_letters.one(position))), None)

    async def _letters(self, sql: str, args: Sequence[Value]) -> list[Letter]:
        return [letter_of(row) for row in await self.read(sql, args)]

    async def redrive(self, positions: Sequence[int], *, who: str, why: str, at: float) -> int:
        """Mark dead letters to be tried again."""
        return await self._write(sqlite_letters.redriving(positions, who, why, at))

    async def discard(self, position: int, *, who: str, why: str, at: float) -> bool:
        """End a dead letter for good."""
        return await self._write(sqlite_letters.discarding(position, who, why, at))

    async def apply(self, statements: Sequence[tuple[str, Sequence[Value]]]) -> list[int]:
        """Run statements on our own tables in one transaction between groups."""
        return await self._write(lambda cursor: [cursor.execute(sql, args).rowcount for sql, args in statements])

    async def forget(self, before: float) -> int:
        """Remove old inbox ids, looking at the 10,000 oldest at most."""
        args = (self._limits.forget, before)
        return await self._write(lambda cursor: cursor.execute(QUERIES["forget"], args).rowcount)

    async def _write(self, run: Callable[[sqlite3.Cursor], T]) -> T:
        """Run something of our own in a transaction between groups."""
        self._opened()
        self._hand_over()
        return await self._writer.call(lambda: self._writer.transact_ours(run))
