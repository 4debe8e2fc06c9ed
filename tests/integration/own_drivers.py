"""The drivers in whose transactions messages are published: each with a database of its own and an outbox."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import linkspan.asyncpg
import linkspan.psycopg
import linkspan.sqlalchemy
import linkspan.sqlite3
from tests.unit.app_shop import Orders, Place, Placed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.integration.postgres_runner import PostgresRunner


class Driver:
    """A driver: its outbox, `begin()` for a transaction on a connection of its own, and `insert` into the user's table."""

    def __init__(self, outbox: Any, begin: Callable[[], Any], insert: Callable[[Any, str], Any]) -> None:
        self.outbox = outbox
        self.begin = begin
        self.insert = insert

    async def publish(self, connection: Any, order: str, note: str = "", **more: Any) -> None:
        await finished(self.outbox.publish(connection, Placed(order=order, note=note), **more))

    async def send(self, connection: Any, request: Place, key: str) -> None:
        await finished(self.outbox.send(connection, Orders.place, request, key=key))


async def finished(value: Any) -> None:
    """Await what is to be awaited."""
    if hasattr(value, "__await__"):
        await value


async def fresh(postgres: PostgresRunner) -> str:
    """Return the URL of a new database."""
    connection = await asyncpg.connect(postgres.url())
    name = f"own_{await connection.fetchval('select count(*) from pg_database')}"
    await connection.execute(f"create database {name}")
    await connection.close()
    connection = await asyncpg.connect(postgres.url(name))
    await connection.execute("create table orders (id text primary key)")
    await connection.close()
    return postgres.url(name)


def on_sqlite3(path: Path) -> Driver:
    with sqlite3.connect(path) as made:
        made.execute("create table orders (id text primary key)")
    made.close()

    @asynccontextmanager
    async def begin() -> AsyncIterator[Any]:
        connection = sqlite3.connect(path)
        try:
            with connection:
                yield connection
        finally:
            connection.close()

    def insert(connection: Any, id_: str) -> None:
        connection.execute("insert into orders values (?)", [id_])

    return Driver(linkspan.sqlite3.Outbox(path), begin, insert)


def on_asyncpg(url: str) -> Driver:
    @asynccontextmanager
    async def begin() -> AsyncIterator[Any]:
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction():
                yield connection
        finally:
            await connection.close()

    return Driver(linkspan.asyncpg.Outbox(url), begin, lambda c, id_: c.execute("insert into orders values ($1)", id_))


def on_psycopg(url: str) -> Driver:
    @asynccontextmanager
    async def begin() -> AsyncIterator[Any]:
        with psycopg.connect(url) as connection:
            yield connection

    def insert(connection: Any, id_: str) -> None:
        connection.execute("insert into orders values (%s)", [id_])

    return Driver(linkspan.psycopg.Outbox(url), begin, insert)


def on_psycopg_async(url: str) -> Driver:
    @asynccontextmanager
    async def begin() -> AsyncIterator[Any]:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            yield connection

    return Driver(linkspan.psycopg.Outbox(url), begin, lambda c, id_: c.execute("insert into orders values (%s)", [id_]))


INSERT = sa.text("insert into orders values (:id)")


def on_sqlalchemy(url: str, *, session: bool) -> Driver:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), poolclass=sa.NullPool)

    @asynccontextmanager
    async def begin() -> AsyncIterator[Any]:
        if session:
            with Session(engine) as opened, opened.begin():
                yield opened
        else:
            with engine.begin() as connection:
                yield connection

    def insert(connection: Any, id_: str) -> None:
        connection.execute(INSERT, {"id": id_})

    return Driver(linkspan.sqlalchemy.Outbox(engine), begin, insert)


def on_sqlalchemy_async(url: str, *, session: bool) -> Driver:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), poolclass=sa.NullPool)

    @asynccontextmanager
    async def begin() -> AsyncIterator[Any]:
        if session:
            async with AsyncSession(engine) as opened, opened.begin():
                yield opened
        else:
            async with engine.begin() as connection:
                yield connection

    return Driver(linkspan.sqlalchemy.Outbox(engine), begin, lambda c, id_: c.execute(INSERT, {"id": id_}))


POSTGRES: dict[str, Callable[[str], Driver]] = {
    "asyncpg": on_asyncpg,
    "psycopg": on_psycopg,
    "psycopg-async": on_psycopg_async,
    "sqlalchemy-session": lambda url: on_sqlalchemy(url, session=True),
    "sqlalchemy-connection": lambda url: on_sqlalchemy(url, session=False),
    "sqlalchemy-async-session": lambda url: on_sqlalchemy_async(url, session=True),
    "sqlalchemy-async-connection": lambda url: on_sqlalchemy_async(url, session=False),
}
DRIVERS = ("sqlite3", *POSTGRES)
CONCURRENT = ("asyncpg", "psycopg-async", "sqlalchemy-async-session", "sqlalchemy-async-connection")


async def driver(name: str, postgres: PostgresRunner, folder: Path) -> Driver:
    """Return a driver on a database of its own."""
    if name == "sqlite3":
        return await asyncio.to_thread(on_sqlite3, folder / "theirs.db")
    return POSTGRES[name](await fresh(postgres))
