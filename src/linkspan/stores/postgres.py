"""The store that many processes share: a schema of a PostgreSQL database, recorded units in groups, sessions side by side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from linkspan.errors import Code, Error, SetupError
from linkspan.ports import OUTBOX, Outcome, Outgoing
from linkspan.stores import postgres_lanes, postgres_letters, postgres_scheduled
from linkspan.stores.postgres_attest import durability
from linkspan.stores.postgres_errors import coded
from linkspan.stores.postgres_outbox import Deletions, share
from linkspan.stores.postgres_place import Place, PostgresLimits
from linkspan.stores.postgres_pool import Pool
from linkspan.stores.postgres_rows import Known, Rows
from linkspan.stores.postgres_schema import check_format, check_server, migrate_own, migrate_user, own_format
from linkspan.stores.postgres_session import PostgresSession, Surroundings
from linkspan.stores.postgres_sql import QUERIES, translated
from linkspan.stores.postgres_wake import Bell
from linkspan.stores.postgres_writer import Writer
from linkspan.stores.rows import claims_of, letter_of, scheduled_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from linkspan.ports import Durability, Letter, LetterState, Runtime, Scheduled, Session, Tenure, Unit, Value
    from linkspan.stores.postgres_place import Connection

__all__ = ["PostgresLimits", "PostgresStore"]

T = TypeVar("T")
Row = tuple[Any, ...]

_EVERY_LANE = tuple(range(64))
_PROCESS_LOCK = "select pg_advisory_lock(hashtext('linkspan process ' || $1::text), $2::int)"
_PROCESS_GONE = """
update linkspan_process set gone = true
where not gone and id <> $2 and pg_try_advisory_xact_lock(hashtext('linkspan process ' || $1::text), id::int)
"""
_PROCESS_NEW = "insert into linkspan_process (name, started) values ($1, $2) returning id"
_PROCESS_OLD = "delete from linkspan_process where gone and started < $1"
_DAY = 86_400.0


class PostgresStore:
    """Implements `linkspan.ports.Store` in one schema. With `exclusive=False` it makes nothing: for the command line, beside services."""

    def __init__(self, url: str, *, name: str, runtime: Runtime, exclusive: bool = True, limits: PostgresLimits | None = None) -> None:
        self.name = name
        self.place = Place.of(url, name=name, limits=limits)
        self._runtime = runtime
        self._exclusive = exclusive
        limits = self.place.limits
        self._known = Known()
        self._pool = Pool(self.place, name, limits.sessions)
        self._readers = Pool(self.place, name, limits.readers, reading=True)
        self._around = Surroundings(name, self._pool, runtime, limits, self._settle_one, self._rows)
        self._writer = Writer(name, runtime, limits, self._connect, self._settle)
        self._deletions = Deletions(runtime, limits, self._hand_over)
        self._bell = Bell(self.place, name, runtime)
        self._loop: asyncio.AbstractEventLoop
        self._waiting: list[Unit] = []
        self._process = 0
        self._crashed = False
        self._tenure: Tenure | None = None
        self._state = "new"
        self._closed: asyncio.Future[None] | None = None

    @property
    def shared(self) -> bool:
        """Tell that other processes may have it open."""
        return True

    @property
    def crashed(self) -> bool:
        """Tell whether a process that had it open ended without `aclose`, and no other has seen that before."""
        return self._crashed

    # --- life

    async def open(self) -> None:
        """Connect, migrate our tables, sign in."""
        if self._state != "new":
            raise SetupError(f"The store '{self.name}' was opened before: make a new one.")
        self._state = "opening"
        self._loop = asyncio.get_running_loop()
        try:
            connection = await self.place.connect(self.name, ours=self._exclusive)
            try:
                await self._sign_in(connection)
            except BaseException:
                connection.terminate()
                raise
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            self._state = "closed"
            raise coded(self.name, error) from error
        self._state = "open"

    async def _sign_in(self, connection: Connection) -> None:
        """Look at server and tables; leave a row that tells, by its lock, whether this process lives."""
        check_server(connection, self.name)
        if not self._exclusive:
            found = await own_format(connection, self.place)
            if found != check_format(found, self.place):
                raise SetupError(f"The schema '{self.place.schema}' has format {found}, not ours: run 'linkspan db upgrade'.")
            await connection.close()
            return
        await migrate_own(connection, self.place, self.name)
        now = self._runtime.clock.now()
        async with connection.transaction():  # nobody sees the row without its lock
            self._process = await connection.fetchval(_PROCESS_NEW, self.name, now)
            await self._lock(connection)
        self._crashed = await connection.execute(_PROCESS_GONE, self.place.schema, self._process) != "UPDATE 0"
        await connection.execute(_PROCESS_OLD, now - _DAY)
        self._writer.start(connection, self._process)

    async def _connect(self) -> Connection:
        """Open a connection for the writer, after the first was lost."""
        connection = await self.place.connect(self.name, ours=True)
        try:
            await self._lock(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _lock(self, connection: Connection) -> None:
        await connection.execute(_PROCESS_LOCK, self.place.schema, self._process)

    async def aclose(self) -> None:
        """Commit what was submitted, roll back open sessions, delete what was sent, close."""
        if self._closed is None:
            self._closed = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closed)

    async def _close(self) -> None:
        was, self._state = self._state, "closed"
        if was != "open":
            return
        self._hand_over()
        await self._bell.aclose()
        await asyncio.gather(*(session.close() for session in list(self._around.sessions)))
        connection = await self._writer.stop()
        if connection is not None:
            try:
                await connection.execute("delete from linkspan_process where id = $1", self._process)
                await connection.close(timeout=self.place.limits.closing)
            except Exception:  # noqa: BLE001 - ended by the server just now, asyncpg may be in any state; what matters is stored
                connection.terminate()
        await self._pool.aclose()
        await self._readers.aclose()

    async def migrate(self, scripts: Sequence[tuple[str, str]]) -> None:
        """Apply the user's new scripts."""
        self._owned()
        now = self._runtime.clock.now()
        await self._with(self._pool, lambda connection: migrate_user(connection, self.place, list(scripts), now))

    async def attest(self) -> Durability:
        """Say what a commit is worth, by the server's settings."""
        self._opened()
        return await self._with(self._readers, durability)

    # --- writing

    def submit(self, unit: Unit) -> None:
        """Queue a unit; all of one turn of the loop go to the writer together."""
        if self._state != "open" or not self._exclusive:
            self._turn_away(unit)
            return
        waiting = self._waiting
        if not waiting:
            self._loop.call_soon(self._hand_over)
        waiting.append(unit)

    def _turn_away(self, unit: Unit) -> None:
        """Settle a unit that comes before `open` or after `aclose`."""
        unit.outcome = Outcome.FAILED
        unit.error = Error(Code.UNAVAILABLE, f"The store '{self.name}' is not open for writing: open it first.")
        asyncio.get_running_loop().call_soon(unit.settled, unit)

    def _hand_over(self) -> None:
        """Give the writer what has gathered."""
        units, self._waiting = self._waiting, []
        sent = self._deletions.taken()
        if units or sent:
            self._writer.put(units, sent)

    def _settle(self, units: Sequence[Unit], deleted: Sequence[Outgoing], kept: Sequence[Outgoing]) -> None:
        """Tell the units of a group how they ended."""
        for unit in units:
            self._settle_one(unit)
        self._deletions.settled(deleted, kept if self._state == "open" else ())

    def _settle_one(self, unit: Unit) -> None:
        try:
            unit.settled(unit)
        except Exception as error:  # noqa: BLE001 - one caller must not lose the others their answers
            self._loop.call_exception_handler({"message": "A unit's settled callback failed.", "exception": error})
        if unit.messages and unit.outcome is Outcome.COMMITTED:
            self._ring_for(unit.messages)

    def _ring_for(self, messages: Sequence[Outgoing]) -> None:
        """Wake the others if a message is in a lane that is another's."""
        tenure = self._tenure
        if tenure is not None and tenure.members > 1 and any(message.lane not in tenure.lanes for message in messages):
            self._bell.ring()

    async def begin(self, unit: Unit, sql: str, args: Sequence[Value] = ()) -> tuple[Session, list[Row]] | None:
        """Open an interactive transaction with its first statement; None when the inbox id is a duplicate."""
        self._owned()
        session = PostgresSession(self._around, unit)
        rows = await session.start(sql, args)
        return None if rows is None else (session, rows)

    def _rows(self, connection: Connection) -> Rows:
        return Rows(connection, self._known)

    # --- reading

    async def read(self, sql: str, args: Sequence[Value] = ()) -> list[Row]:
        """Run one statement on a committed snapshot, on a connection that cannot write."""
        return await self._read(translated(sql), args)

    async def _read(self, sql: str, args: Sequence[object]) -> list[Row]:
        self._opened()
        return await self._with(self._readers, lambda connection: _fetched(connection, sql, args), reading=True)

    async def _with(self, pool: Pool, run: Callable[[Connection], Awaitable[T]], *, reading: bool = False) -> T:
        """Run something on a connection of a pool; again on a new one where the connection turns out to be dead and it only reads."""
        connection = await pool.take()
        try:
            return await run(connection)
        except SetupError:
            raise
        except Exception as error:
            if not (reading and connection.is_closed()):
                raise coded(self.name, error, reading=reading) from error
        finally:
            pool.give(connection)
        connection = await pool.take(fresh=True)
        try:
            return await run(connection)
        except Exception as error:
            raise coded(self.name, error, reading=reading) from error
        finally:
            pool.give(connection)

    def _opened(self) -> None:
        if self._state != "open":
            raise Error(Code.UNAVAILABLE, f"The store '{self.name}' is not open: open it first.")

    def _owned(self) -> None:
        self._opened()
        if not self._exclusive:
            raise Error(
                Code.FAILED_PRECONDITION, f"The store '{self.name}' was opened beside its services: only letters can be changed here."
            )

    # --- lanes

    async def hold_lanes(self, service: str, instance: str, *, keep: Collection[int] | None, lease: float) -> Tenure:
        """Renew the membership, give back, take."""
        self._owned()
        tenure = await self._with(self._pool, lambda connection: postgres_lanes.held(connection, service, instance, keep, lease))
        if service == OUTBOX:
            self._tenure = tenure
        return tenure

    async def leave_lanes(self, service: str, instance: str) -> None:
        """Give back all and leave."""
        self._owned()
        await self._with(self._pool, lambda connection: postgres_lanes.left(connection, service, instance))
        if service == OUTBOX:
            self._tenure = None
            self._bell.ring()

    # --- outbox

    def on_wake(self, wake: Callable[[], None]) -> None:
        """Listen for other processes of this schema."""
        self._bell.listen(wake)

    async def unsent(self, after: int, limit: int, lanes: Collection[int] | None = None) -> list[Outgoing]:
        """Return outbox rows above a position, without those that `sent` has named."""
        wanted, gone = list(_EVERY_LANE if lanes is None else lanes), self._deletions.positions
        each = share(limit, len(wanted))
        found: list[Outgoing] = []
        more = True
        with self._deletions.looking():
            while more and len(found) < limit:
                rows = await self._read(QUERIES["outbox_unsent"], (after, limit, wanted, each, list(gone)))
                found += [Outgoing(*row) for *row, _ in rows]
                found = [message for message in found if message.position not in gone]  # what ended meanwhile leaves room for others
                more = bool(rows) and (rows[-1][-1] or len(rows) == limit)
                after = rows[-1][-2] if rows else after
        return found[:limit]

    def sent(self, messages: Sequence[Outgoing]) -> None:
        """Delete rows with a later group."""
        if self._state == "open":
            self._deletions.add(messages)

    def deleting(self, position: int) -> bool:
        """Tell whether a row is only waiting for its deletion."""
        return position in self._deletions.positions

    async def depth(self) -> tuple[int, float]:
        """Return how many rows wait and the age of the oldest, without those that `sent` has named."""
        with self._deletions.looking():
            ((count, oldest),) = await self._read(QUERIES["outbox_depth"], (list(self._deletions.positions),))
        return count, 0.0 if oldest is None else max(self._runtime.clock.now() - oldest, 0.0)

    # --- scheduled messages

    def add_scheduled(self, unit: Unit, message: Outgoing, due: float, source: str) -> None:
        """Keep a message until it is due, with the unit."""
        unit.statements.append(postgres_scheduled.added(message, due, source, self._runtime.clock.now()))

    cancelling = staticmethod(postgres_scheduled.cancelling)
    taking = staticmethod(postgres_scheduled.taking)
    taken = staticmethod(scheduled_of)

    async def next_due(self) -> float | None:
        """Return the earliest due time."""
        return next((row[0] for row in await self._read(QUERIES["scheduled_next"], ())), None)

    async def scheduled(self, source: str = "", *, after: tuple[float, int] = (0.0, 0), limit: int = 100) -> list[Scheduled]:
        """Return what is scheduled, earliest first."""
        return self.taken(await self._read(QUERIES["scheduled_list"], (*after, source, limit)))

    async def cancel_scheduled(self, position: int, source: str, *, who: str, why: str, at: float) -> bool:
        """Cancel a message by its row."""
        return await self._counted(QUERIES["scheduled_end"], (position, source, at, who, why)) > 0

    # --- letters

    def add_letter(self, unit: Unit, letter: Letter) -> None:
        """Add a letter with the unit."""
        unit.statements.append(postgres_letters.added(letter))

    def update_letter(self, unit: Unit, letter: Letter) -> None:
        """Store how a letter stands with the unit."""
        unit.statements.append(postgres_letters.changed(letter))

    def remove_letter(self, unit: Unit, position: int) -> None:
        """Remove a letter with the unit."""
        unit.statements.append(postgres_letters.removed(position))

    def expire_letter(self, unit: Unit, position: int, *, who: str, at: float) -> None:
        """Remove a letter past its expiry with the unit, audited."""
        unit.statements.append(postgres_letters.expired(position, who, at))

    async def held_keys(self, lanes: Collection[int] | None = None) -> set[tuple[str, str]]:
        """Return the `(topic, key)` pairs that have letters."""
        return {(row[0], row[1]) for row in await self._read(*postgres_letters.keys(lanes))}

    async def heads(self, now: float, limit: int, lanes: Collection[int] | None = None) -> list[Letter]:
        """Return the first letters that may run."""
        return await self._letters(*postgres_letters.heads(now, limit, lanes))

    async def due_letters(self, service: str, now: float, limit: int, lanes: Collection[int] | None = None) -> list[tuple[str, str, int]]:
        """Return the first letters that are due or redriven."""
        wanted = _EVERY_LANE if lanes is None else lanes
        return [(row[0], row[1], row[2]) for row in await self._read(*postgres_letters.due(service, now, limit, wanted))]

    async def next_letter(self, topic: str, key: str) -> Letter | None:
        """Return a key's first letter."""
        return next(iter(await self._letters(*postgres_letters.first_of(topic, key))), None)

    async def letters(self, *, states: Sequence[LetterState] = (), after: int = 0, limit: int = 100) -> list[Letter]:
        """Return letters in position order."""
        return await self._letters(*postgres_letters.letters(states, after, limit))

    async def letter(self, position: int) -> Letter | None:
        """Return one letter."""
        return next(iter(await self._letters(*postgres_letters.one(position))), None)

    async def _letters(self, sql: str, args: Sequence[object]) -> list[Letter]:
        return [letter_of(row) for row in await self._read(sql, args)]

    async def redrive(self, positions: Sequence[int], *, who: str, why: str, at: float) -> int:
        """Mark dead letters to be tried again."""
        return await self._counted(QUERIES["redrive"], (list(positions), who, why, at))

    async def discard(self, position: int, *, who: str, why: str, at: float) -> bool:
        """End a dead letter for good."""
        self._opened()
        return await self._with(self._pool, lambda connection: self._discard(connection, (position, who, why, at)))

    async def _discard(self, connection: Connection, args: Sequence[object]) -> bool:
        async with connection.transaction():
            found = await connection.fetchrow(QUERIES["discard"], *args)
            if found is None:
                return False
            claims = claims_of(*found)
            await connection.execute(QUERIES["claim"], [source for source, _ in claims], [id_ for _, id_ in claims], args[-1])
        return True

    async def _counted(self, sql: str, args: Sequence[object]) -> int:
        """Run one of our statements and return how many rows it gave."""
        self._opened()
        return len(await self._with(self._pool, lambda connection: _fetched(connection, sql, args)))

    async def apply(self, statements: Sequence[tuple[str, Sequence[Value]]]) -> list[int]:
        """Run statements on our own tables in one transaction."""
        self._opened()
        return await self._with(self._pool, lambda connection: _applied(connection, statements))

    async def forget(self, before: float) -> int:
        """Remove old inbox ids, 10,000 at most."""
        self._opened()
        limit = self.place.limits.forget
        status = await self._with(self._pool, lambda connection: connection.execute(QUERIES["forget"], before, limit))
        return int(status.rpartition(" ")[2])


async def _fetched(connection: Connection, sql: str, args: Sequence[object]) -> list[Row]:
    return [tuple(row) for row in await connection.fetch(sql, *args)]


async def _applied(connection: Connection, statements: Sequence[tuple[str, Sequence[Value]]]) -> list[int]:
    async with connection.transaction():
        return [await _changed(connection, sql, args) for sql, args in statements]


async def _changed(connection: Connection, sql: str, args: Sequence[Value]) -> int:
    """Run one statement and return how many rows it changed, as its command tag says."""
    status = await connection.execute(translated(sql), *args)
    count = status.rpartition(" ")[2]
    return int(count) if count.isdecimal() else 0
