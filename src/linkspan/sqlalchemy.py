"""An outbox inside SQLAlchemy transactions. Needs the extra `sqlalchemy`.

`outbox.publish(session, event)` adds a row to the session; it is written, committed or rolled back with everything else in it, and a
running App whose Service has this outbox sends it after the commit.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final, cast

import sqlalchemy
from sqlalchemy import event as events
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, registry, scoped_session
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Outgoing
from linkspan.runtime import system
from linkspan.sender import Origin, Sender
from linkspan.stores.postgres_tables import add_tables
from linkspan.trace import trace_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from linkspan.owner import Owned
    from linkspan.ports import Runtime

__all__ = ["TABLE", "Outbox", "add_tables"]

FORMAT: Final = 1
"""The format of a row: what its columns mean."""
_AT_A_TIME: Final = 500

_mapped = registry()

TABLE: Final = sqlalchemy.Table(
    "linkspan_handover",
    _mapped.metadata,
    sqlalchemy.Column("position", sqlalchemy.Integer, primary_key=True),
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


class Outbox:
    """Publishes in the transactions of an SQLAlchemy engine: `Service("orders", outbox=Outbox(engine))`.

    Works with `Session` and `AsyncSession`, in any thread. The database is an SQLite file.
    """

    def __init__(self, engine: sqlalchemy.Engine | AsyncEngine, *, runtime: Runtime | None = None) -> None:
        self._engine = engine
        self._plain = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
        self._check_engine()
        self._runtime = runtime or system()
        self._sender: Sender | None = None
        self._making = threading.Lock()
        self._wake: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def publish(self, session: Any, event: Any, message: Any = None) -> None:
        """Publish an event when the session's transaction commits; nothing is sent if it rolls back.

        Raises `Error` for an event without a key, of another owner, too large, or a session of another database.
        """
        self._add(session, lambda sender, origin: sender.event(origin, event, message))

    def send(self, session: Any, operation: Any, request: Any, *, key: str | None = None) -> None:
        """Send a durable command when the session's transaction commits. The same `key` for the same operation is one effect."""
        self._add(session, lambda sender, origin: sender.command(origin, operation, request, key))

    def _add(self, session: Any, make: Callable[[Sender, Origin], Outgoing]) -> None:
        sender = self._sender
        if sender is None:
            raise SetupError("This Outbox belongs to no service: write Service(name, outbox=...), before anything is published.")
        plain = _plain_session(session)
        self._check_database(plain)
        id_ = self._runtime.ids.new()
        with self._making:
            message = make(sender, Origin(id_, trace_of(id_)))
        plain.add(_Row(message))
        if self not in plain.info:
            plain.info[self] = True
            events.listen(plain, "after_commit", self._committed)

    def _committed(self, _session: Session) -> None:
        loop, wake = self._loop, self._wake
        if loop is not None and wake is not None and not loop.is_closed():
            loop.call_soon_threadsafe(wake)

    # --- what the mover asks (linkspan.handover.HandOver)

    def bind(self, name: str, owns: Owned) -> None:
        """Take the service's name and what it may publish."""
        if self._sender is not None and self._sender.source != f"/{name}":
            raise SetupError(f"The Outbox of '{self._sender.source[1:]}' was given to service '{name}', too: make one for each.")
        self._sender = Sender(name, self._runtime, owns)

    async def open(self, wake: Callable[[], None]) -> None:
        """Make the table where it is missing, and wake after commits."""
        await self._run(_create)
        self._loop, self._wake = asyncio.get_running_loop(), wake

    async def committed(self, limit: int) -> list[tuple[int, Outgoing]]:
        """Return the first committed rows."""
        query = sqlalchemy.select(TABLE).order_by(TABLE.c.position).limit(limit)
        rows = await self._run(lambda connection: connection.execute(query).all())
        for row in rows:
            if row.format != FORMAT:
                text = f"A handed-over message has format {row.format}, {FORMAT} is read here: run the version that wrote it."
                raise Error(Code.FAILED_PRECONDITION, text)
        return [(row.position, Outgoing(row.topic, row.name, row.lane, row.id, row.key, row.headers, row.data)) for row in rows]

    async def remove(self, positions: Sequence[int]) -> None:
        """Delete rows that were moved."""
        gone = list(positions)

        def delete(connection: sqlalchemy.Connection) -> None:
            for start in range(0, len(gone), _AT_A_TIME):
                connection.execute(sqlalchemy.delete(TABLE).where(TABLE.c.position.in_(gone[start : start + _AT_A_TIME])))

        await self._run(delete)

    async def aclose(self) -> None:
        """Wake nobody any more. The engine is the user's."""
        self._wake = self._loop = None

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
        if self._plain.dialect.name != "sqlite":
            raise SetupError(f"Outbox cannot work on '{self._plain.dialect.name}' yet: it needs an SQLite file.")
        if self._plain.url.database in {None, "", ":memory:"} or isinstance(self._plain.pool, StaticPool | SingletonThreadPool):
            text = "Outbox needs an SQLite file and a connection per session: messages in memory are lost, and a shared connection "
            raise SetupError(text + "would show them before they are committed.")

    def _check_database(self, session: Session) -> None:
        bind: Any = session.get_bind(mapper=_Row)
        if bind.engine is not self._plain and bind.engine.url != self._plain.url:
            text = "The session writes to another database than the Outbox reads: give the Outbox the engine of this session."
            raise Error(Code.FAILED_PRECONDITION, text)


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
