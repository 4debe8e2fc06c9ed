"""Publishing in the transactions of somebody else's SQLAlchemy sessions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("sqlalchemy", reason="not run: sqlalchemy is not installed")

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import StaticPool

from linkspan import App, Code, Context, Error, Service, SetupError
from linkspan.outgoing import handover as moving
from linkspan.sqlalchemy import TABLE, Outbox
from tests.unit.app_shop import Placed, app_of, contract, reacting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Seen:
    """What arrived, with the id and the order in which it was handled."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[str, str, str]] = asyncio.Queue()

    async def __call__(self, ctx: Context, event: Placed) -> None:
        await self.queue.put((event.order, event.note, ctx.id))

    async def take(self, count: int) -> list[tuple[str, str, str]]:
        async with asyncio.timeout(20):
            return [await self.queue.get() for _ in range(count)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/theirs.db")
    with engine.begin() as connection:
        connection.execute(sa.text("create table orders (id text primary key)"))
    yield engine
    engine.dispose()


def shop(folder: Path, outbox: Outbox, seen: Seen) -> App:
    return app_of(folder, Service("orders", owns=[contract], outbox=outbox), reacting("mail", seen))


def waiting(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(TABLE)).scalar_one())


async def test_commit_publishes_and_rollback_does_not(tmp_path: Path, engine: sa.Engine) -> None:
    outbox, seen = Outbox(engine), Seen()
    async with shop(tmp_path, outbox, seen):
        with Session(engine) as session:
            session.execute(sa.text("insert into orders values ('1')"))
            outbox.publish(session, Placed(order="1", note="gone"))
            session.rollback()
        with Session(engine) as session, session.begin():
            outbox.publish(session, Placed(order="1", note="outer"))
            savepoint = session.begin_nested()
            outbox.publish(session, Placed(order="1", note="undone"))
            session.flush()
            savepoint.rollback()
            session.execute(sa.text("insert into orders values ('1')"))
        assert [(order, note) for order, note, _ in await seen.take(1)] == [("1", "outer")]
        assert seen.queue.empty()
    assert waiting(engine) == 0


async def test_nothing_leaves_before_the_commit(tmp_path: Path, engine: sa.Engine) -> None:
    outbox, seen = Outbox(engine), Seen()
    async with shop(tmp_path, outbox, seen) as app:
        with Session(engine) as session:
            outbox.publish(session, Placed(order="1", note="n"))
            session.flush()
            assert await outbox.committed(10) == []
            assert seen.queue.empty()
            session.commit()
        await seen.take(1)
    assert not app.running


async def test_async_sessions_publish(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/theirs.db")
    outbox, seen = Outbox(engine), Seen()
    try:
        async with shop(tmp_path, outbox, seen):
            async with AsyncSession(engine) as session, session.begin():
                outbox.publish(session, Placed(order="1", note="n"))
            assert (await seen.take(1))[0][:2] == ("1", "n")
    finally:
        await engine.dispose()


async def test_order_per_key_is_the_order_of_commits(tmp_path: Path, engine: sa.Engine) -> None:
    outbox, seen = Outbox(engine), Seen()
    numbers = iter(range(1_000_000))

    def work(key: str) -> None:
        for _ in range(20):
            with Session(engine) as session, session.begin():
                session.execute(sa.text("update orders set id = id"))  # takes the write lock, so that numbers are in commit order
                for _ in range(2):
                    outbox.publish(session, Placed(order=key, note=str(next(numbers))))

    async with shop(tmp_path, outbox, seen):
        await asyncio.gather(*(asyncio.to_thread(work, key) for key in "aab"))
        found = await seen.take(120)
    for key in "ab":
        mine = [int(note) for order, note, _ in found if order == key]
        assert mine == sorted(mine)
    assert len({id_ for _, _, id_ in found}) == 120


async def test_rows_of_which_nobody_told_are_swept(tmp_path: Path, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "SWEEP", 0.05)
    outbox, elsewhere, seen = Outbox(engine), Outbox(engine), Seen()
    Service("orders", owns=[contract], outbox=elsewhere)  # as in another process, whose commits wake nobody here
    async with shop(tmp_path, outbox, seen):
        with Session(engine) as session, session.begin():
            elsewhere.publish(session, Placed(order="1", note="n"))
        await seen.take(1)


async def test_database_that_is_locked_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "SWEEP", 0.05)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/theirs.db", connect_args={"timeout": 0.01})
    outbox, seen = Outbox(engine), Seen()
    async with shop(tmp_path, outbox, seen):
        with Session(engine) as session:
            outbox.publish(session, Placed(order="1", note="n"))
            session.commit()
        with engine.connect() as other:
            other.exec_driver_sql("begin exclusive")
            await asyncio.sleep(0.2)
            other.exec_driver_sql("rollback")
        await seen.take(1)
        assert seen.queue.empty()
    assert await outbox.committed(1) == []
    engine.dispose()


async def test_what_is_committed_when_the_app_ends_is_sent_first(tmp_path: Path, engine: sa.Engine) -> None:
    outbox, seen = Outbox(engine), Seen()
    async with shop(tmp_path, outbox, seen):
        with Session(engine) as session, session.begin():
            for number in range(700):
                outbox.publish(session, Placed(order="1", note=str(number)))
    assert waiting(engine) == 0


def test_sessions_of_every_kind_are_taken(tmp_path: Path, engine: sa.Engine) -> None:
    TABLE.metadata.create_all(engine)
    outbox = Outbox(engine)
    Service("orders", owns=[contract], outbox=outbox)
    made = sessionmaker(engine)
    for make in (made, scoped_session(made)):
        session: Any = make() if make is made else make
        outbox.publish(session, Placed(order="1", note="n"))
        session.commit()
        session.close()
    assert waiting(engine) == 2
    with pytest.raises(SetupError, match="give the Session or AsyncSession"):
        outbox.publish(engine, Placed(order="1"))


def test_wrong_uses_are_refused(tmp_path: Path, engine: sa.Engine) -> None:
    outbox = Outbox(engine)
    with Session(engine) as session:
        with pytest.raises(SetupError, match="belongs to no service"):
            outbox.publish(session, Placed(order="1"))
        Service("orders", owns=["app.other.v1"], outbox=outbox)
        with pytest.raises(Error) as caught:
            outbox.publish(session, Placed(order="1"))
        assert caught.value.code is Code.FAILED_PRECONDITION
        assert "let that one publish it" in caught.value.message
        Service("orders", owns=[contract], outbox=outbox)
        with pytest.raises(Error, match="no order key"):
            outbox.publish(session, Placed())
    with pytest.raises(SetupError, match="make one for each"):
        Service("mail", outbox=outbox)
    with sa.create_engine(f"sqlite:///{tmp_path}/other.db").connect() as other, Session(other) as session:
        with pytest.raises(Error, match="another database"):
            outbox.publish(session, Placed(order="1"))
        session.close()
    other.engine.dispose()


@pytest.mark.parametrize("engine", [sa.create_engine("sqlite://"), sa.create_engine("sqlite:///x.db", poolclass=StaticPool)])
def test_databases_that_could_lose_or_leak_messages_are_refused(engine: sa.Engine) -> None:
    with pytest.raises(SetupError, match="needs an SQLite file and a connection per session"):
        Outbox(engine)


async def test_rows_of_another_format_are_left_alone(tmp_path: Path, engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    outbox, seen = Outbox(engine), Seen()
    TABLE.metadata.create_all(engine)
    Service("orders", owns=[contract], outbox=outbox)
    with Session(engine) as session, session.begin():
        outbox.publish(session, Placed(order="1", note="n"))
        session.flush()
        session.execute(sa.update(TABLE).values(format=2))
    async with shop(tmp_path, outbox, seen):
        await asyncio.sleep(0.1)
        assert seen.queue.empty()
    assert waiting(engine) == 1
    assert "handed-over messages failed" in caplog.text
