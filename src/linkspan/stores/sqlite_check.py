"""An SQLite file against what it should be: our tables are made anew in memory and compared word by word."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from linkspan.stores.schema import SchemaState, compared
from linkspan.stores.sqlite_errors import coded
from linkspan.stores.sqlite_file import own_format, own_scripts, statements_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["state", "upgrade_sql"]

_META = "create table if not exists linkspan_meta (name text primary key, value text not null) without rowid;"
_PARTS = "select type, name, sql from sqlite_master where name like 'linkspan%' and name <> 'linkspan_meta' and sql is not null"


def state(path: Path, scripts: Sequence[tuple[str, str]]) -> SchemaState:
    """Compare, on a connection that only reads."""
    newest = own_scripts()[-1][0]
    if not path.exists():
        return SchemaState(0, newest, pending=tuple(name for name, _ in scripts))
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = own_format(connection)
            applied = dict(connection.execute("select name, digest from linkspan_migration order by ordinal").fetchall()) if found else {}
            parts = _parts(connection)
    except sqlite3.Error as error:
        raise coded(path.name, error) from error
    pending, wrong = compared(applied, scripts)
    return SchemaState(found, newest, _drift(parts, found), pending, wrong)


def _parts(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    return {(kind, name): " ".join(sql.split()) for kind, name, sql in connection.execute(_PARTS)}


def _drift(parts: dict[tuple[str, str], str], found: int) -> tuple[str, ...]:
    """Say what differs from tables of the same format."""
    if not found or found > own_scripts()[-1][0]:
        return ()
    with closing(sqlite3.connect(":memory:")) as fresh:
        for number, script in own_scripts():
            if number <= found:
                for statement in statements_of(script):
                    fresh.execute(statement)
        wanted = _parts(fresh)
    missing = [f"the {kind} {name} is missing" for kind, name in wanted if (kind, name) not in parts]
    return (
        *missing,
        *(f"the {kind} {name} is not as it was made" for (kind, name), sql in wanted.items() if parts.get((kind, name), sql) != sql),
    )


def upgrade_sql(found: int) -> str:
    """Return the scripts above a format, with what notes it."""
    steps = [(number, script) for number, script in own_scripts() if number > found]
    if not steps:
        return ""
    note = f"insert or replace into linkspan_meta (name, value) values ('format', '{steps[-1][0]}');"  # noqa: S608 - our own number
    return "\n".join(["begin immediate;", _META, *(f"-- format {number}\n{script}" for number, script in steps), note, "commit;\n"])
