"""A PostgreSQL schema against what it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from linkspan.errors import SetupError
from linkspan.stores.postgres_drift import drift
from linkspan.stores.postgres_errors import coded
from linkspan.stores.postgres_place import Place
from linkspan.stores.postgres_schema import check_server, own_format, wanted_sql
from linkspan.stores.postgres_sql import own_scripts
from linkspan.stores.schema import SchemaState, compared

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["failure", "state", "upgrade_sql"]


async def state(url: str, name: str, scripts: Sequence[tuple[str, str]]) -> SchemaState:
    """Compare, and leave nothing behind."""
    place = Place.of(url, name=name)
    connection = await place.connect(name)
    try:
        check_server(connection, name)
        found = await own_format(connection, place)
        newest = own_scripts()[-1][0]
        if not found:
            return SchemaState(0, newest, pending=tuple(name for name, _ in scripts))
        rows = await connection.fetch(f"select name, digest from {place.quoted}.linkspan_migration order by ordinal")  # noqa: S608 - a checked name
        pending, wrong = compared({row[0]: row[1] for row in rows}, scripts)
        differs = await drift(connection, place, found) if found <= newest else ()
    finally:
        await connection.close(timeout=place.limits.closing)
    return SchemaState(found, newest, differs, pending, wrong)


def failure(name: str, error: Exception) -> Exception:
    """Return what to raise for a failed look."""
    return coded(name, error) if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | OSError) else SetupError(str(error))


def upgrade_sql(url: str, name: str, found: int) -> str:
    """Return the SQL above a format."""
    return wanted_sql(Place.of(url, name=name), found)
