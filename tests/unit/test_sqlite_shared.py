"""Interactive transactions that wait in line share a commit, and nobody hears of an end that may not come true."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from linkspan.context import Transaction
from linkspan.errors import Code, Error
from linkspan.ports import Outcome
from linkspan.runtime import system
from linkspan.stores.sqlite import SqliteLimits, SqliteStore
from linkspan.testing.store_probe import INSERT, NOTHING, SCRIPTS, Settled, effects, message, opened
from tests.unit.test_sqlite_writer import COUNT, Watch, store_at

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan.ports import Store, Unit

SLOW = SqliteLimits(shared_delay=30.0)
CHILD = ("002", "create table child (id text references effect (id) deferrable initially deferred)")


async def run(store: Store, unit: Unit, sql: str, *args: str | int) -> list[tuple[object, ...]] | None:
    found = await store.begin(unit, sql, args)
    if found is None:
        return None
    session, rows = found
    await session.commit()
    return rows


def code_of(found: object) -> Code:
    assert isinstance(found, Error), repr(found)
    return found.code


async def test_a_line_shares_commits_in_order(tmp_path: Path) -> None:
    done, watch = Settled(), Watch()
    async with store_at(tmp_path, SLOW, watch=watch) as store:
        units = [done.unit(("s", str(n)), [(INSERT, (f"{n:03}", n))], [message(str(n))]) for n in range(100)]
        rows = await asyncio.gather(*(run(store, unit, "select count(*) from effect") for unit in units))
        assert rows == [[(n + 1,)] for n in range(100)], "each sees those before it"
        assert watch.commits <= 4
        assert done.order == units
        found = await store.unsent(0, 200)
        assert [(m.id, m.sequence, m.position) for m in found] == [(str(n), n + 1, n + 1) for n in range(100)]
        assert [unit.messages[0].position for unit in units] == list(range(1, 101))


async def test_a_failing_one_is_undone_alone(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path, SLOW) as store:
        units = [done.unit(("s", str(n % 5)), messages=[message(str(n))]) for n in range(8)]
        units[3].statements.append((INSERT, ("x", None)))
        works = [run(store, unit, INSERT, "1" if n == 2 else str(n), n) for n, unit in enumerate(units)]
        found = await asyncio.gather(*works, return_exceptions=True)
        assert found[:2] == [[], []]
        assert [code_of(each) for each in found[2:4]] == [Code.ALREADY_EXISTS, Code.FAILED_PRECONDITION]
        assert found[4:7] == [[], None, None], "the inbox ids of 5 and 6 are those of 0 and 1"
        assert found[7] == [], "the inbox id of 2 was given back"
        assert await effects(store) == ["0", "1", "4", "7"]
        assert [(m.id, m.sequence, m.position) for m in await store.unsent(0, 9)] == [("0", 1, 1), ("1", 2, 2), ("4", 3, 3), ("7", 4, 4)]


async def joined(store: Store, done: Settled) -> tuple[asyncio.Task[None], Unit, asyncio.Task[Any]]:
    """Let a first session end while a second is in line."""
    unit = done.unit(("s", "1"), messages=[message("1")])
    first = await opened(store.begin(unit, INSERT, ("a", 1)))
    second = asyncio.ensure_future(store.begin(done.unit(("s", "2")), "select count(*) from effect"))
    await asyncio.sleep(0)
    return asyncio.ensure_future(first.commit()), unit, second


async def test_nobody_is_told_before_the_commit(tmp_path: Path) -> None:
    done, watch = Settled(), Watch()
    async with store_at(tmp_path, SLOW, watch=watch) as store:
        commit, unit, second = await joined(store, done)
        session, rows = await second
        assert rows == [(1,)]
        assert (commit.done(), unit.outcome, watch.commits) == (False, None, 0)
        assert await effects(store) == []
        await session.rollback()
        await commit
        assert (unit.outcome, watch.commits) == (Outcome.COMMITTED, 1)
        assert await effects(store) == ["a"]


async def test_a_slow_one_does_not_keep_those_before(tmp_path: Path) -> None:
    """The second waits for the first to be told: without parting they would wait for each other."""
    done, watch = Settled(), Watch()
    async with store_at(tmp_path, watch=watch) as store:
        commit, unit, second = await joined(store, done)
        session, _ = await second
        await session.execute(INSERT, ("b", 2))
        await commit
        assert unit.outcome is Outcome.COMMITTED
        assert await effects(store) == ["a"]
        assert await session.execute("select count(*) from effect") == [(2,)]
        await session.commit()
        assert watch.commits == 2
        assert await effects(store) == ["a", "b"]


async def test_who_parts_and_sees_something_else_tries_again(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path) as store:
        commit, _, second = await joined(store, done)
        session, _ = await second
        await session.execute("select random()")
        await commit
        with pytest.raises(Error) as caught:
            await session.commit()
        assert caught.value.code is Code.UNAVAILABLE
        await done.submit(store, done.unit(("s", "2"), [(INSERT, ("b", 1))]))
        assert await effects(store) == ["a", "b"]


async def test_a_failed_commit_fails_all_and_the_next_go_alone(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path, SLOW) as store:
        await store.migrate([*SCRIPTS, CHILD])

        async def all_of_them() -> list[object]:
            orphan = run(store, done.unit(("s", "2")), "insert into child values ('nobody')")
            first, known = (run(store, done.unit(("s", "1")), *what) for what in ((INSERT, "a", 1), (NOTHING,)))
            return await asyncio.gather(first, orphan, known, run(store, done.unit(), INSERT, "a", 1), return_exceptions=True)

        found = await all_of_them()
        assert [code_of(each) for each in found] == [Code.UNAVAILABLE] * 4, "a duplicate of what did not come true as well"
        assert done.order == []
        again = await all_of_them()
        assert again[0] == []
        assert code_of(again[1]) is Code.FAILED_PRECONDITION
        assert again[2] is None
        assert code_of(again[3]) is Code.ALREADY_EXISTS
        assert await effects(store) == ["a"]


async def test_rollback_says_when_what_was_seen_did_not_come_true(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path, SLOW) as store:
        await store.migrate([*SCRIPTS, CHILD])
        first = await opened(store.begin(done.unit(), "insert into child values ('nobody')"))
        waiting: asyncio.Task[Any] = asyncio.ensure_future(store.begin(done.unit(), "select count(*) from child"))
        await asyncio.sleep(0)
        commit = asyncio.ensure_future(first.commit())
        session, rows = await waiting
        assert rows == [(1,)]
        results = await asyncio.gather(session.rollback(), commit, return_exceptions=True)
        assert [code_of(each) for each in results] == [Code.UNAVAILABLE] * 2


async def test_an_interrupted_one_may_take_those_before_with_it(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path, SLOW) as store:
        commit, _, second = await joined(store, done)
        session, _ = await second
        begun, loop = asyncio.Event(), asyncio.get_running_loop()
        store._writer.connection.set_trace_callback(lambda _sql: loop.call_soon_threadsafe(begun.set))
        running = asyncio.ensure_future(session.execute(f"insert into effect select 'x' || count(*), 1 from ({COUNT})"))
        await begun.wait()
        running.cancel()
        await asyncio.wait([running])
        with pytest.raises(Error) as caught:
            await commit
        assert caught.value.code is Code.UNAVAILABLE
        unit = done.unit(("s", "1"), [(INSERT, ("a", 1))], [message("1")])
        assert await done.submit(store, unit) == [Outcome.COMMITTED]
        assert (await effects(store), unit.messages[0].sequence) == (["a"], 1)


async def test_recorded_units_keep_their_place_in_the_line(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path, SLOW) as store:
        units = [done.unit() for _ in range(30)]

        async def one(n: int) -> None:
            if n % 5 == 4:
                units[n].statements.append((INSERT, (f"{n:02}", n)))
                await done.submit(store, units[n])
            else:
                await run(store, units[n], INSERT, f"{n:02}", n)

        await asyncio.gather(*(one(n) for n in range(30)))
        assert done.order == units


async def test_swallowed_first_failure_cannot_commit(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path) as store:
        unit = done.unit(("s", "1"), [(INSERT, ("a", 1))])
        tx = Transaction(store, unit, read_only=False)
        for code in (Code.ALREADY_EXISTS, Code.FAILED_PRECONDITION):
            with pytest.raises(Error) as caught:
                await tx.execute(INSERT, "a", 1)
            assert caught.value.code is code
        assert tx.session is not None
        with pytest.raises(Error, match="let the handler fail"):
            await tx.session.commit()
        await tx.session.rollback()
        assert await effects(store) == []


async def test_close_commits_those_who_ended(tmp_path: Path) -> None:
    done = Settled()
    store = SqliteStore(tmp_path / "shop.db", name="shop", runtime=system(), limits=SLOW)
    await store.open()
    await store.migrate(SCRIPTS)
    commit, unit, second = await joined(store, done)
    await second
    await store.aclose()
    await commit
    assert unit.outcome is Outcome.COMMITTED
    async with store_at(tmp_path) as again:
        assert await effects(again) == ["a"]
