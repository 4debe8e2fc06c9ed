"""One SQLite file: its connections, its lock, its tables, the user's scripts, and what a commit to it is worth."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import sqlite3
import sys
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from linkspan.errors import SetupError
from linkspan.stores.sqlite_errors import coded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    Transact = Callable[[Callable[[sqlite3.Cursor], None]], None]

__all__ = [
    "QUERIES",
    "ROWS",
    "FileLock",
    "Guard",
    "SqliteLimits",
    "connect",
    "migrate_own",
    "migrate_user",
    "own_format",
    "written",
]

OLDEST = (3, 35, 0)
"""The first SQLite with all that we use."""

ROWS = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""How many rows one statement writes: few sizes, so that prepared statements are found again; 256 x 11 values stay under 32,766."""


@dataclass(frozen=True, slots=True)
class SqliteLimits:
    """Sizes and waits of an SQLite store; times in seconds. `pages` is the most pages the file may have, 0 for no limit.

    At most `shared` interactive transactions share a commit, and the first of them waits at most `shared_delay` for it.
    """

    busy: float = 5.0
    group: int = 512
    sent_rows: int = 256
    sent_delay: float = 0.05
    sequences: int = 65_536
    forget: int = 10_000
    pages: int = 0
    shared: int = 64
    shared_delay: float = 0.005


def _load(text: str) -> dict[str, str]:
    """Read named queries."""
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return {name: sql.strip() for name, sql in zip(parts[1::2], parts[2::2], strict=True)}


_SQL = files("linkspan.stores") / "sql"
QUERIES: Mapping[str, str] = _load((_SQL / "queries.sql").read_text("utf-8"))


@lru_cache(maxsize=64)
def _of_rows(name: str, width: int, rows: int) -> str:
    """Return a named query for so many rows."""
    row = f"({', '.join('?' * width)})"
    return QUERIES[name].replace("%", ", ".join([row] * rows))


def written(cursor: sqlite3.Cursor, name: str, rows: Sequence[Sequence[Any]]) -> int:
    """Run a `%` query for all rows and return how many it changed. One step for many rows, as each step gives the GIL away."""
    changed = 0
    for sql, values in in_chunks(name, rows):
        changed += cursor.execute(sql, values).rowcount
    return changed


def in_chunks(name: str, rows: Sequence[Sequence[Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Cut rows into statements of few sizes."""
    width = len(rows[0])
    start = 0
    for size in ROWS:
        while len(rows) - start >= size:
            yield _of_rows(name, width, size), [value for row in rows[start : start + size] for value in row]
            start += size


# --- connections -----------------------------------------------------------------------------------

_SETTINGS_OF_OURS = frozenset(
    {"busy_timeout", "journal_mode", "locking_mode", "query_only", "synchronous", "wal_autocheckpoint", "writable_schema"}
)
_SCHEMA = frozenset(
    {
        sqlite3.SQLITE_ALTER_TABLE,
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_TRIGGER,
        sqlite3.SQLITE_CREATE_VIEW,
        sqlite3.SQLITE_CREATE_TEMP_TABLE,
        sqlite3.SQLITE_CREATE_TEMP_TRIGGER,
        sqlite3.SQLITE_CREATE_TEMP_VIEW,
    }
)
_NEVER = frozenset({sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_SAVEPOINT})


class Guard:
    """Keeps transactions, attached files and durability settings out of the user's statements. Asked once per prepared statement.

    `schema` changes whenever a statement is prepared that may change the schema.
    """

    __slots__ = ("ours", "schema")

    def __init__(self) -> None:
        self.ours = True
        self.schema = 0

    def __call__(self, action: int, first: str | None, second: str | None, _schema: str | None, _trigger: str | None) -> int:
        """Answer SQLite's question whether the statement may; count what may change the schema."""
        if action in _SCHEMA:
            self.schema += 1
        if self.ours:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_TRANSACTION or action in _NEVER:
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_PRAGMA and second is not None and str(first).lower() in _SETTINGS_OF_OURS:
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK


def connect(path: Path, limits: SqliteLimits, guard: Guard, *, reading: bool = False, create: bool = False) -> sqlite3.Connection:
    """Open a connection with our settings: WAL, FULL; readers cannot write. The guard is closed at the end."""
    uri = f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=limits.busy, cached_statements=512, check_same_thread=False)
    try:
        guard.ours = True
        connection.set_authorizer(guard)
        if create:
            _log_ahead(connection, path)
        for pragma in _pragmas(limits, reading=reading):
            connection.execute(f"pragma {pragma}").fetchall()
        guard.ours = False
    except BaseException:
        connection.close()
        raise
    return connection


def _log_ahead(connection: sqlite3.Connection, path: Path) -> None:
    """Turn the write-ahead log on; some file systems cannot have one."""
    if connection.execute("pragma journal_mode = wal").fetchone() != ("wal",):
        raise SetupError(f"The store '{path.name}' cannot have a write-ahead log here: use a local disk.")


def _pragmas(limits: SqliteLimits, *, reading: bool) -> Iterator[str]:
    """Yield the settings of a connection."""
    yield "synchronous = full"
    if sys.platform == "darwin":
        yield "fullfsync = on"
    yield "foreign_keys = on"
    yield "temp_store = memory"
    yield "cache_size = -16384"
    yield "wal_autocheckpoint = 4000"
    yield "journal_size_limit = 67108864"
    if limits.pages:
        yield f"max_page_count = {limits.pages}"
    if reading:
        yield "query_only = on"


class FileLock:
    """Keeps a second process out: `flock` on `<file>.lock`, which the kernel frees when the holder dies, however it dies.

    A holder that ends in order empties the file, so that the next one knows (`abandoned`) when the last one did not.
    """

    __slots__ = ("_descriptor", "_path", "abandoned")

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._descriptor = -1
        self.abandoned = False

    def take(self) -> None:
        """Take the lock. Raises `SetupError` when another holds it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise SetupError(
                f"The store '{self._path.name.removesuffix('.lock')}' is open in another process ({holder}): "
                "stop that one, or use PostgreSQL where several processes share a store."
            ) from error
        self.abandoned = os.fstat(descriptor).st_size > 0
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        self._descriptor = descriptor

    def free(self, *, in_order: bool = False) -> None:
        """Give the lock back; the file stays, so that nobody locks a name that is being removed."""
        if self._descriptor >= 0:
            if in_order:
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1


# --- tables ----------------------------------------------------------------------------------------


def own_format(connection: sqlite3.Connection) -> int:
    """Return the format of our tables in the file, 0 where there are none."""
    found = connection.execute("select 1 from sqlite_master where name = 'linkspan_meta'").fetchone()
    row = connection.execute("select value from linkspan_meta where name = 'format'").fetchone() if found else None
    return int(row[0]) if row else 0


def own_scripts() -> list[tuple[int, str]]:
    """Return our numbered scripts in order."""
    names = sorted(entry.name for entry in _SQL.iterdir() if re.match(r"\d{4}_", entry.name))
    return [(int(name[:4]), (_SQL / name).read_text("utf-8")) for name in names]


def check_format(found: int, path: Path) -> int:
    """Return the newest format that we know. Raises `SetupError` when the file's is newer."""
    newest = own_scripts()[-1][0]
    if found > newest:
        raise SetupError(f"The store '{path.name}' has format {found}, this linkspan knows up to {newest}: use a newer linkspan.")
    return newest


def migrate_own(connection: sqlite3.Connection, path: Path, transact: Transact) -> None:
    """Bring our tables to the newest format, one transaction a step."""
    found = own_format(connection)
    check_format(found, path)
    for number, script in own_scripts():
        if number > found:
            transact(partial(_step, number, script))


def _step(number: int, script: str, cursor: sqlite3.Cursor) -> None:
    """Run one of our own scripts and note the format it leads to."""
    cursor.execute("create table if not exists linkspan_meta (name text primary key, value text not null) without rowid")
    for statement in statements_of(script):
        cursor.execute(statement)
    cursor.execute("insert or replace into linkspan_meta (name, value) values ('format', ?)", (str(number),))


def statements_of(script: str) -> Iterator[str]:
    """Cut a script into statements; triggers stay whole."""
    statement = ""
    for piece in re.split(r"(?<=;)", script):
        statement += piece
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement


def migrate_user(
    connection: sqlite3.Connection,
    scripts: Iterable[tuple[str, str]],
    transact: Transact,
    now: Callable[[], float],
) -> None:
    """Apply the user's scripts that are new. Raises `SetupError` naming the one that changed, is gone, or fails."""
    applied = dict(connection.execute("select name, digest from linkspan_migration order by ordinal").fetchall())
    given = {name: (sql, hashlib.sha256(sql.encode()).hexdigest()) for name, sql in scripts}
    for name, digest in applied.items():
        if name not in given:
            raise SetupError(f"Migration '{name}' was applied to this store and is gone: put it back.")
        if given[name][1] != digest:
            raise SetupError(f"Migration '{name}' has changed since it was applied: restore it and add a new one.")
    fresh = [(name, sql, digest) for name, (sql, digest) in given.items() if name not in applied]
    for ordinal, (name, sql, digest) in enumerate(fresh, len(applied) + 1):
        try:
            transact(partial(_apply, sql, (name, ordinal, digest, now())))
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            if coded(name, error).transient:
                raise
            raise SetupError(f"Migration '{name}' failed and was undone: {error}.") from error


def _apply(sql: str, row: tuple[str, int, str, float], cursor: sqlite3.Cursor) -> None:
    """Run a user's script and note it."""
    for statement in statements_of(sql):
        cursor.execute(statement)
    cursor.execute("insert into linkspan_migration (name, ordinal, digest, at) values (?, ?, ?, ?)", row)
