"""The tables: ours by numbered scripts, the user's by theirs. Instances that start together take turns (advisory lock)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import asyncpg

from linkspan.errors import Error, SetupError
from linkspan.stores.postgres_drift import drift
from linkspan.stores.postgres_errors import coded
from linkspan.stores.postgres_place import OLDEST
from linkspan.stores.postgres_sql import own_scripts, statements_of, translated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from linkspan.stores.postgres_place import Connection, Place

__all__ = ["META", "check_format", "check_server", "migrate_own", "migrate_user", "own_format", "wanted_sql"]

_LOCK = "select pg_advisory_xact_lock(hashtextextended('linkspan schema ' || $1::text, 0))"
# Not to_regclass: it answers from a cache that the advisory lock does not refresh.
_THERE = "select true from pg_class where relnamespace = (select oid from pg_namespace where nspname = $1) and relname = $2"
META = "create table if not exists linkspan_meta (\n  name text primary key,\n  value text not null\n);\n"
_NOTED = f"""{META}
insert into linkspan_meta (name, value) values ('format', '{{number}}') on conflict (name) do update set value = excluded.value
"""  # noqa: S608 - our own number


def check_server(connection: Connection, name: str) -> None:
    """Refuse a server that is too old."""
    version = connection.get_server_version()
    if version.major < OLDEST:
        raise SetupError(f"The server of store '{name}' is PostgreSQL {version.major}: use {OLDEST} or newer.")


async def own_format(connection: Connection, place: Place) -> int:
    """Return the format of our tables, 0 where there are none."""
    if not await connection.fetchval(_THERE, place.schema, "linkspan_meta"):
        return 0
    return int(await connection.fetchval(f"select value from {place.quoted}.linkspan_meta where name = 'format'") or 0)  # noqa: S608 - a checked name


def check_format(found: int, place: Place) -> int:
    """Return the newest format that we know. Raises `SetupError` when the schema's is newer."""
    newest = own_scripts()[-1][0]
    if found > newest:
        raise SetupError(f"The schema '{place.schema}' has format {found}, this linkspan knows up to {newest}: use a newer linkspan.")
    return newest


def wanted_sql(place: Place, found: int) -> str:
    """Return the SQL that leads from a format to the newest, '' when it is there."""
    steps = [f"-- format {number}\n{script}{_NOTED.format(number=number)};\n" for number, script in own_scripts() if number > found]
    if not steps:
        return ""
    start = f"create schema if not exists {place.quoted};\n" if not found else ""
    return f"begin;\n{start}set local search_path = {place.quoted};\n{''.join(steps)}commit;\n"


async def migrate_own(connection: Connection, place: Place, name: str) -> int:
    """Bring our tables to the newest format in one transaction; return how many steps that took. Raises `SetupError`."""
    if await own_format(connection, place) == check_format(0, place):
        return 0
    try:
        async with connection.transaction():
            await connection.execute(_LOCK, place.schema)
            found = await own_format(connection, place)
            newest = check_format(found, place)
            if await _made_by_others(connection, place, found, newest):
                return 1
            if not found and not await connection.fetchval("select true from pg_namespace where nspname = $1", place.schema):
                await connection.execute(f"create schema {place.quoted}")
            await connection.execute(f"set local search_path = {place.quoted}")
            steps = [(number, script) for number, script in own_scripts() if number > found]
            for number, script in steps:
                await connection.execute(script)
                await connection.execute(_NOTED.format(number=number))
    except asyncpg.InsufficientPrivilegeError as error:
        raise SetupError(
            f"The role of store '{name}' may not make tables in schema '{place.schema}': "
            "run 'linkspan db upgrade' with one that may, or give it the SQL of 'linkspan db init --sql'."
        ) from error
    return len(steps)


async def _made_by_others(connection: Connection, place: Place, found: int, newest: int) -> bool:
    """Take tables as they are that the user's own migrations have brought to the newest format; nobody has noted it yet."""
    if found == newest or not await connection.fetchval(_THERE, place.schema, "linkspan_outbox"):
        return False
    if await drift(connection, place, newest):
        return False
    await connection.execute(f"set local search_path = {place.quoted}")
    await connection.execute(_NOTED.format(number=newest))
    return True


async def migrate_user(connection: Connection, place: Place, scripts: Iterable[tuple[str, str]], now: float) -> None:
    """Apply the user's scripts that are new. Raises `SetupError` naming the one that changed, is gone, or fails."""
    given = {name: (sql, hashlib.sha256(sql.encode()).hexdigest()) for name, sql in scripts}
    while True:
        async with connection.transaction():
            await connection.execute(_LOCK, place.schema)
            applied = {row[0]: row[1] for row in await connection.fetch("select name, digest from linkspan_migration order by ordinal")}
            fresh = _next(applied, given)
            if fresh is None:
                return
            sql, digest = given[fresh]
            try:
                for statement in statements_of(sql):
                    translated(statement)  # refuses what would end the transaction
                async with connection.transaction():
                    await connection.execute(sql)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, Error) as error:
                if isinstance(error, Error) or not coded(place.schema, error).transient:
                    raise SetupError(f"Migration '{fresh}' failed and was undone: {error}.") from error
                raise
            await connection.execute(
                "insert into linkspan_migration (name, ordinal, digest, at) values ($1, $2, $3, $4)", fresh, len(applied) + 1, digest, now
            )


def _next(applied: dict[str, str], given: dict[str, tuple[str, str]]) -> str | None:
    """Return the next script to apply."""
    for name, digest in applied.items():
        if name not in given:
            raise SetupError(f"Migration '{name}' was applied to this store and is gone: put it back.")
        if given[name][1] != digest:
            raise SetupError(f"Migration '{name}' has changed since it was applied: restore it and add a new one.")
    return next((name for name in given if name not in applied), None)
