"""An outbox inside SQLAlchemy transactions. Needs the extra `sqlalchemy`.

`outbox.publish(session, event)` adds a row to the session; it is written, committed or rolled back with everything else in it, and a
running App whose Service has this outbox sends it after the commit.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast, overload

import sqlalchemy
from sqlalchemy import event as events
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, registry, scoped_session
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from linkspan.errors import Code, Error, SetupError
from linkspan.handing import FORMAT, POSTGRES, Handing, message_of, refuse_alone, row_of
from linkspan.stores.postgres_tables import add_tables

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from linkspan.ports import Outgoing, Runtime

__all__ = ["TABLE", "Outbox", "add_tables"]

_AT_A_TIME: Final = 500
_COLUMNS: Final = ("format", "id", "topic", "name", "lane", "key", "headers", "data")
_LOCK: Final = sqlalchemy.text(POSTGRES.LOCK.format(topic="cast(:topic as text)", key="cast(:key as text)"))

_mapped = registry()

TABLE: Final = sqlalchemy.Table(
    "linkspan_handover",
    _mapped.metadata,
    sqlalchemy.Column(
        "position",
        sqlalchemy.BigInteger().with_variant(sqlalchemy.Integer, "sqlite"),
        sqlalchemy.Identity(always=False),
        primary_key=True,
    ),
    sqlalchemy.Column("format", sqlalchemy.Integer, nullable=False),
    sqlalchemy.Column("id", sqlalchemy.String(36), nullable=False),
    sqlalchemy.Column("topic", sqlalchemy.Text, nullable=False),
    sqlalchemy.Column("name", sqlalchemy.Text, nullable=False),
    sqlalchemy.Column("lane", sqlalchemy.Integer, nullable=False),
    sqlalchemy.Column("key", sqlalchemy.Text, nullable=False),
    sqlalchemy.Column("headers", sqlalchemy.LargeBinary, nullable=False),
    sqlalchemy.Column("data", sqlalchemy.LargeBinary, nullable=False),
    sqlite_autoincrement=True,  # a position is never used again
)
"""The table, for those who make their tables by migrations: `TABLE.metadata.create_all(engine)`; else the App makes it at start."""


class _Row:
    """A message that was handed over."""

    def __init__(self, message: Outgoing) -> None:
        self.format = FORMAT
        self.id, self.topic, self.name, self.lane, self.key = message.id, message.topic, message.name, message.lane, message.key
        self.headers, self.data = message.headers, message.data


_mapped.map_imperatively(_Row, TABLE)


class Outbox(Handing):
    """Publishes in the transactions of an SQLAlchemy engine: `Service("orders", outbox=Outbox(engine))`.

    Works with `Session`, `AsyncSession`, `Connection` and `AsyncConnection`, in any thread. The database is PostgreSQL or an SQLite file.
    """

    def __init__(self, engine: sqlalchemy.Engine | AsyncEngine, *, runtime: Runtime | None = None) -> None:
        super().__init__(runtime)
        self._engine = engine
        self._plain = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
        self._check_engine()

    @overload
    def publish(self, session: AsyncConnection, event: Any, message: Any = None, *, alone: bool = False) -> Awaitable[None]: ...
    @overload
    def publish(
        self,
        session: Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any] | sqlalchemy.Connection,
        event: Any,
        message: Any = None,
        *,
        alone: bool = False,
    ) -> None: ...
    def publish(self, session: Any, event: Any, message: Any = None, *, alone: bool = False) -> Awaitable[None] | None:
        """Publish an event when the transaction of a session or connection commits; nothing is sent if it rolls back.

        Raises `Error` for an event without a key, of another owner, too large, a session of another database, or a connection that
        commits each statement by itself, unless that is meant (`alone`). With an `AsyncConnection` it is to be awaited.
        """
        return self._hand_over(session, self.made_event(event, message), alone=alone)

    @overload
    def send(
        self, session: AsyncConnection, operation: Any, request: Any, *, key: str | None = None, alone: bool = False
    ) -> Awaitable[None]: ...
    @overload
    def send(
        self,
        session: Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any] | sqlalchemy.Connection,
        operation: Any,
        request: Any,
        *,
        key: str | None = None,
        alone: bool = False,
    ) -> None: ...
    def send(self, session: Any, operation: Any, request: Any, *, key: str | None = None, alone: bool = False) -> Awaitable[None] | None:
        """Send a durable command when the transaction commits. The same `key` for the same operation is one effect."""
        return self._hand_over(session, self.made_command(operation, request, key), alone=alone)

    def _hand_over(self, session: Any, message: Outgoing, *, alone: bool) -> Awaitable[None] | None:
        if isinstance(session, AsyncConnection):
            return session.run_sync(self._insert, message, alone)
        if isinstance(session, sqlalchemy.Connection):
            self._insert(session, message, alone)
            return None
        plain = _plain_session(session)
        self._check_database(plain.get_bind(mapper=_Row))
        plain.add(_Row(message))
        if self not in plain.info:
            plain.info[self] = True
            events.listen(plain, "after_commit", self._committed)
            if self._plain.dialect.name == "postgresql":
                events.listen(plain, "before_flush", _lock_keys)
        return None

    def _insert(self, connection: sqlalchemy.Connection, message: Outgoing, alone: bool) -> None:  # noqa: FBT001 - run_sync gives by position
        self._check_database(connection)
        if not alone and _commits_each_statement(connection):
            raise refuse_alone("connection")
        _lock(connection, [message])
        connection.execute(sqlalchemy.insert(TABLE), dict(zip(_COLUMNS, row_of(message), strict=True)))
        self.committed_soon()

    def _committed(self, _session: Session) -> None:
        self.committed_now()

    # --- what the mover asks (linkspan.handover.HandOver)

    async def open(self, wake: Callable[[], None]) -> None:
        """Make the table where it is missing, and wake after commits."""
        await self._run(_create)
        self.opened(wake)

    async def committed(self, limit: int) -> list[tuple[int, Outgoing]]:
        """Return the first committed rows."""
        query = sqlalchemy.select(TABLE).order_by(TABLE.c.position).limit(limit)
        return [message_of(tuple(row)) for row in await self._run(lambda connection: connection.execute(query).all())]

    async def remove(self, positions: Sequence[int]) -> None:
        """Delete rows that were moved."""
        gone = list(positions)

        def delete(connection: sqlalchemy.Connection) -> None:
            for start in range(0, len(gone), _AT_A_TIME):
                connection.execute(sqlalchemy.delete(TABLE).where(TABLE.c.position.in_(gone[start : start + _AT_A_TIME])))

        await self._run(delete)

    async def _run(self, work: Callable[[sqlalchemy.Connection], Any]) -> Any:
        """Run in a transaction of its own, beside the user's."""
        engine = self._engine
        if isinstance(engine, AsyncEngine):
            async with engine.begin() as connection:
                return await connection.run_sync(work)

        def blocking() -> Any:
            with engine.begin() as connection:
                return work(connection)

        return await asyncio.to_thread(blocking)

    def _check_engine(self) -> None:
        """Refuse databases where a committed row could be missed or an uncommitted one be seen. Raises `SetupError`."""
        if self._plain.dialect.name == "postgresql":
            return
        if self._plain.dialect.name != "sqlite":
            raise SetupError(f"Outbox cannot work on '{self._plain.dialect.name}' yet: it needs PostgreSQL or an SQLite file.")
        if self._plain.url.database in {None, "", ":memory:"} or isinstance(self._plain.pool, StaticPool | SingletonThreadPool):
            text = "Outbox needs an SQLite file and a connection per session: messages in memory are lost, and a shared connection "
            raise SetupError(text + "would show them before they are committed.")

    def _check_database(self, bind: Any) -> None:
        if bind.engine is not self._plain and bind.engine.url != self._plain.url:
            text = "The session writes to another database than the Outbox reads: give the Outbox the engine of this session."
            raise Error(Code.FAILED_PRECONDITION, text)


def _commits_each_statement(connection: sqlalchemy.Connection) -> bool:
    chosen: Any = connection.get_execution_options().get("isolation_level")
    dialect: Any = connection.dialect
    return bool((chosen or dialect._on_connect_isolation_level) == "AUTOCOMMIT")  # noqa: SLF001 - the server only knows its own levels


def _lock_keys(session: Session, _context: object, _instances: object) -> None:
    """Lock the keys of the rows that are about to be written, in one order everywhere, so that none waits for another in a ring."""
    fresh = [each for each in session.new if isinstance(each, _Row)]
    if fresh:
        _lock(session.connection(bind_arguments={"mapper": _Row}), fresh)


def _lock(connection: sqlalchemy.Connection, messages: Iterable[Outgoing | _Row]) -> None:
    if connection.dialect.name == "postgresql":
        for topic, key in sorted({(message.topic, message.key) for message in messages}):
            connection.execute(_LOCK, {"topic": topic, "key": key})


def _create(connection: sqlalchemy.Connection) -> None:
    TABLE.create(connection, checkfirst=True)


def _plain_session(session: Any) -> Session:
    if isinstance(session, scoped_session | async_scoped_session):
        session = cast("Any", session)()
    if isinstance(session, AsyncSession):
        return session.sync_session
    if not isinstance(session, Session):
        raise SetupError(f"Outbox.publish was given a {type(session).__name__}: give the Session or AsyncSession of the transaction.")
    return session
