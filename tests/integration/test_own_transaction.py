"""Publishing in a transaction that the user already has, with each driver and each database."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("asyncpg", reason="not run: asyncpg is not installed")
pytest.importorskip("psycopg", reason="not run: psycopg is not installed")
pytest.importorskip("sqlalchemy", reason="not run: sqlalchemy is not installed")

import sqlite3

import asyncpg
import psycopg
import sqlalchemy as sa

import linkspan.asyncpg
import linkspan.psycopg
import linkspan.sqlalchemy
import linkspan.sqlite3
from linkspan import App, Code, Context, Error, Service, SetupError
from tests.integration.own_drivers import CONCURRENT, DRIVERS, Driver, driver, finished, fresh
from tests.unit.app_shop import Place, Placed, app_of, contract, reacting

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.postgres_runner import PostgresRunner


class UndoneError(Exception):
    """Rolls a transaction back."""


class Seen:
    """What arrived, in the order in which it was handled."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def __call__(self, ctx: Context, event: Placed) -> None:
        await self.queue.put((event.order, event.note))

    async def take(self, count: int) -> list[tuple[str, str]]:
        async with asyncio.timeout(30):
            return [await self.queue.get() for _ in range(count)]


def shop(folder: Path, used: Driver, seen: Seen) -> App:
    return app_of(folder, Service("orders", owns=[contract], outbox=used.outbox), reacting("mail", seen))


@pytest.mark.parametrize("name", DRIVERS)
async def test_commit_publishes_and_rollback_does_not(name: str, postgres: PostgresRunner, tmp_path: Path) -> None:
    used, seen = await driver(name, postgres, tmp_path), Seen()
    async with shop(tmp_path, used, seen):
        with suppress(UndoneError):
            async with used.begin() as connection:
                await finished(used.insert(connection, "1"))
                await used.publish(connection, "1", "undone")
                raise UndoneError
        async with used.begin() as connection:
            await finished(used.insert(connection, "1"))
            await used.publish(connection, "1", "first")
            await used.publish(connection, "1", "second")
        assert await seen.take(2) == [("1", "first"), ("1", "second")]
        async with used.begin() as connection:
            await used.publish(connection, "1", "third")
        assert await seen.take(1) == [("1", "third")]


@pytest.mark.parametrize("name", CONCURRENT)
async def test_order_of_a_key_is_the_order_of_commits(name: str, postgres: PostgresRunner, tmp_path: Path) -> None:
    """A transaction that began first and publishes late comes after the one that published and committed before it."""
    used, seen = await driver(name, postgres, tmp_path), Seen()
    async with shop(tmp_path, used, seen):
        async with used.begin() as early:
            await finished(used.insert(early, "early"))
            async with used.begin() as late:
                await finished(used.insert(late, "late"))
                await used.publish(late, "7", "committed first")
            await used.publish(early, "7", "committed second")
            assert await seen.take(1) == [("7", "committed first")]
        assert await seen.take(1) == [("7", "committed second")]


@pytest.mark.parametrize("name", CONCURRENT)
async def test_long_transaction_loses_nothing_and_holds_up_nobody(name: str, postgres: PostgresRunner, tmp_path: Path) -> None:
    """A row with a low position that becomes visible late is sent, and those of other keys do not wait for it."""
    used, seen = await driver(name, postgres, tmp_path), Seen()
    async with shop(tmp_path, used, seen):
        async with used.begin() as long:
            await used.publish(long, "long", "late")
            if "session" in name:
                await long.flush()
            for number in range(3):
                async with used.begin() as short:
                    await used.publish(short, f"short-{number}")
            assert sorted(await seen.take(3)) == [(f"short-{number}", "") for number in range(3)]
        assert await seen.take(1) == [("long", "late")]


async def test_two_that_publish_the_same_key_wait_for_each_other(postgres: PostgresRunner, tmp_path: Path) -> None:
    used, seen = await driver("asyncpg", postgres, tmp_path), Seen()
    async with shop(tmp_path, used, seen):

        async def second() -> None:
            async with used.begin() as connection:
                await used.publish(connection, "7", "second")

        async with used.begin() as connection:
            await used.publish(connection, "7", "first")
            waiting = asyncio.create_task(second())
            done, _ = await asyncio.wait([waiting], timeout=0.3)
            assert not done
        await waiting
        assert await seen.take(2) == [("7", "first"), ("7", "second")]


async def test_outside_a_transaction_it_is_refused_unless_said(postgres: PostgresRunner, tmp_path: Path) -> None:
    url = await fresh(postgres)
    used = Driver(linkspan.asyncpg.Outbox(url), lambda: None, lambda c, i: None)
    seen = Seen()
    async with shop(tmp_path, used, seen):
        connection = await asyncpg.connect(url)
        with pytest.raises(Error, match=r"is in no transaction.*begin one, or say alone=True") as caught:
            await used.publish(connection, "1")
        assert caught.value.code is Code.FAILED_PRECONDITION
        await used.publish(connection, "1", "alone", alone=True)
        assert await seen.take(1) == [("1", "alone")]
        await connection.close()


async def test_outside_a_transaction_every_driver_refuses(postgres: PostgresRunner, tmp_path: Path) -> None:
    url = await fresh(postgres)
    with psycopg.connect(url, autocommit=True) as connection:
        outbox = linkspan.psycopg.Outbox(url)
        Service("orders", owns=[contract], outbox=outbox)
        with pytest.raises(Error, match="in no transaction"):
            outbox.publish(connection, Placed(order="1"))
    loose = sqlite3.connect(tmp_path / "theirs.db", isolation_level=None)
    kept = linkspan.sqlite3.Outbox(tmp_path / "theirs.db")
    Service("orders", owns=[contract], outbox=kept)
    with pytest.raises(Error, match="in no transaction"):
        kept.publish(loose, Placed(order="1"))
    loose.close()
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    own = linkspan.sqlalchemy.Outbox(engine)
    Service("orders", owns=[contract], outbox=own)
    with engine.connect() as plain, pytest.raises(Error, match="in no transaction"):
        own.publish(plain, Placed(order="1"))
    engine.dispose()


async def test_command_with_a_key_is_one_effect(postgres: PostgresRunner, tmp_path: Path) -> None:
    used, seen = await driver("asyncpg", postgres, tmp_path), Seen()
    async with shop(tmp_path, used, seen) as app:
        for _ in range(3):
            async with used.begin() as connection:
                await used.send(connection, Place(order="9"), "once")
        rows = await asyncio.wait_for(_moved(app), 20)
        assert rows == 1


async def _moved(app: App) -> int:
    """Return how many messages of the key reached the outbox once the table is empty."""
    store = app.stores[next(iter(app.stores))]
    outbox = app.services[0].outbox
    assert outbox is not None
    while await outbox.committed(1):  # noqa: ASYNC110 - another process's row would tell nobody either
        await asyncio.sleep(0.01)
    return int((await store.read("select count(*) from linkspan_inbox"))[0][0])


async def test_wrong_connection_is_told(postgres: PostgresRunner, tmp_path: Path) -> None:
    url = await fresh(postgres)
    outbox = linkspan.asyncpg.Outbox(url)
    Service("orders", owns=[contract], outbox=outbox)
    with pytest.raises(SetupError, match="was given a str: give the asyncpg connection"):
        await outbox.publish("connection", Placed(order="1"))
    other = linkspan.sqlite3.Outbox(tmp_path / "a.db")
    Service("orders", owns=[contract], outbox=other)
    with sqlite3.connect(tmp_path / "b.db") as connection, pytest.raises(Error, match="another file"):
        other.publish(connection, Placed(order="1"))
    connection.close()
