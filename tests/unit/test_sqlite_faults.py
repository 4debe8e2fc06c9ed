"""A full disk, a locked file, a directory that goes away: units fail with UNAVAILABLE, nothing is half written, and the store goes on."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Outcome, Unit
from linkspan.runtime import system
from linkspan.stores.sqlite import SqliteLimits, SqliteStore
from linkspan.testing.store_probe import INSERT, NOTHING, SCRIPTS, Settled, effects, message, opened

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from linkspan.ports import Runtime

BIG = "insert into note (line) values (?)"


@asynccontextmanager
async def store_at(place: Path, limits: SqliteLimits | None = None, runtime: Runtime | None = None) -> AsyncGenerator[SqliteStore]:
    store = SqliteStore(place / "shop.db", name="shop", runtime=runtime or system(), limits=limits)
    await store.open()
    try:
        await store.migrate(SCRIPTS)
        yield store
    finally:
        await store.aclose()


@contextmanager
def locked(store: SqliteStore) -> Generator[sqlite3.Connection]:
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("begin immediate")
    try:
        yield other
    finally:
        other.close()


async def failing(done: Settled, store: SqliteStore, *units: Unit) -> None:
    assert await done.submit(store, *units) == [Outcome.FAILED] * len(units)
    assert {unit.error.code for unit in units if unit.error} == {Code.UNAVAILABLE}


def may_write(store: SqliteStore) -> bool:
    other = sqlite3.connect(store.path, isolation_level=None, timeout=0.0)
    try:
        other.execute("begin immediate")
    except sqlite3.OperationalError:
        return False
    finally:
        other.close()
    return True


def largest(place: Path) -> int:
    return max(path.stat().st_size for path in place.iterdir())


async def code_of(work: Any) -> Code:
    with pytest.raises(Error) as caught:
        await work
    return caught.value.code


# --- disk full


async def test_page_limit_fails_what_does_not_fit_and_keeps_the_rest(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path, SqliteLimits(pages=64)) as store:
        small = [done.unit(("s", f"s{n}"), [(INSERT, (f"a{n}", n))], [message(f"m{n}")]) for n in range(3)]
        big = done.unit(("s", "big"), [(INSERT, ("big", 1)), (BIG, ("x" * 500_000,))], [message("lost")])

        outcomes = await done.submit(store, small[0], big, *small[1:])

        assert outcomes == [Outcome.COMMITTED, Outcome.FAILED, Outcome.COMMITTED, Outcome.COMMITTED]
        assert big.error is not None
        assert big.error.code is Code.UNAVAILABLE
        assert await effects(store) == ["a0", "a1", "a2"]
        assert [(m.id, m.sequence) for m in await store.unsent(0, 9)] == [("m0", 1), ("m1", 2), ("m2", 3)]


async def test_session_meets_a_full_disk(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path, SqliteLimits(pages=64)) as store:
        session = await opened(store.begin(done.unit(("s", "1"), [(INSERT, ("a", 1))]), NOTHING))
        assert await code_of(session.execute(BIG, ("x" * 500_000,))) is Code.UNAVAILABLE
        await session.rollback()
        await done.submit(store, done.unit(("s", "1"), [(INSERT, ("b", 1))]))
        assert await effects(store) == ["b"]


async def test_file_size_limit_fails_units_until_there_is_room(tmp_path: Path) -> None:
    """The kernel refuses to let any file grow: what a full disk looks like to SQLite."""
    done = Settled()
    async with store_at(tmp_path) as store:
        await done.write(store, "before")
        size = largest(tmp_path)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, hard))
        try:
            await failing(done, store, *(done.unit(("s", str(n)), [(BIG, ("x" * 100_000,))], [message("lost")]) for n in range(3)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        unit = done.unit(("s", "1"), [(INSERT, ("after", 1))], [message("m")])
        assert await done.submit(store, unit) == [Outcome.COMMITTED]
        assert unit.messages[0].sequence == 1
        assert await effects(store) == ["after", "before"]
        assert await store.read("select count(*) from note") == [(0,)]


async def test_deletions_that_fail_are_tried_again(tmp_path: Path) -> None:
    done = Settled()
    sent = [message(str(n)) for n in range(3)]
    async with store_at(tmp_path, SqliteLimits(busy=0.01, sent_delay=0.01)) as store:
        await done.submit(store, done.unit(messages=sent))
        with locked(store):
            store.sent(sent)
            await failing(done, store, done.unit(statements=[(INSERT, ("a", 1))]))
            assert store.deleting(sent[0].position)
            assert await store.unsent(0, 9) == []
        await done.write(store, "b")
    async with store_at(tmp_path) as store:
        assert await store.unsent(0, 9) == []


# --- locked


async def test_locked_file_is_waited_for(tmp_path: Path) -> None:
    done, loop = Settled(), asyncio.get_running_loop()
    async with store_at(tmp_path, SqliteLimits(busy=10.0)) as store:
        with locked(store) as other:
            loop.call_later(0.5, other.execute, "rollback")
            await done.write(store, "a")
            assert not other.in_transaction


async def test_lock_beyond_the_wait_fails_the_group_at_once(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path, SqliteLimits(busy=0.05)) as store:
        with locked(store):
            started = asyncio.get_running_loop().time()
            await failing(done, store, *(done.unit(("s", str(n)), [(INSERT, (str(n), 1))]) for n in range(200)))
            assert asyncio.get_running_loop().time() - started < 5.0, "one wait for the group, not one for each unit"
            assert await code_of(store.begin(done.unit(), NOTHING)) is Code.UNAVAILABLE
            assert await code_of(store.redrive([1], who="ada", why="x", at=1.0)) is Code.UNAVAILABLE
            assert await code_of(store.migrate([*SCRIPTS, ("002", "select 1")])) is Code.UNAVAILABLE
            assert await store.read("select count(*) from effect") == [(0,)]
        await done.submit(store, *(done.unit(("s", str(n)), [(INSERT, (str(n), 1))]) for n in range(3)))
        assert await effects(store) == ["0", "1", "2"]


async def test_failures_leave_the_file_free_for_others(tmp_path: Path) -> None:
    """What failed must not keep the write lock until the next unit comes."""
    done = Settled()
    async with store_at(tmp_path) as store:
        await done.submit(store, done.unit(statements=[(INSERT, ("a", None))]))
        assert may_write(store)
        unit = done.unit()
        session = await opened(store.begin(unit, NOTHING))
        unit.statements.append((INSERT, ("a", None)))
        assert await code_of(session.commit()) is Code.FAILED_PRECONDITION
        assert may_write(store)
        assert await code_of(store.begin(done.unit(statements=[(INSERT, ("a", None))]), NOTHING)) is Code.FAILED_PRECONDITION
        assert may_write(store)


async def test_reads_go_on_under_a_lock(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path) as store:
        await done.write(store, "a")
        with locked(store) as other:
            other.execute("insert into effect values ('b', 1)")
            assert await effects(store) == ["a"]


# --- gone


async def test_directory_that_is_away_fails_units_until_it_is_back(tmp_path: Path) -> None:
    done = Settled()
    home, away = tmp_path / "home", tmp_path / "away"
    async with store_at(home) as store:
        await done.write(store, "before")
        home.rename(away)
        await failing(done, store, *(done.unit(("s", str(n)), [(INSERT, (f"lost{n}", 1))], [message("lost")]) for n in range(3)))
        session = await opened(store.begin(done.unit(), NOTHING))
        assert await code_of(session.commit()) is Code.UNAVAILABLE
        away.rename(home)
        await done.submit(store, done.unit(("s", "1"), [(INSERT, ("after", 1))]))
        assert await effects(store) == ["after", "before"]
        assert await store.unsent(0, 9) == []


async def test_replaced_file_is_noticed(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path) as store:
        await done.write(store, "before")
        store.path.rename(tmp_path / "old.db")
        (tmp_path / "shop.db").write_bytes(b"")
        unit = done.unit(statements=[(INSERT, ("a", 1))])
        await failing(done, store, unit)
        assert "put it back, or restart" in str(unit.error)


async def test_directory_without_permission_or_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = SqliteStore(tmp_path / "file" / "shop.db", name="shop", runtime=system())
    assert await code_of(store.open()) is Code.UNAVAILABLE


async def test_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "shop.db").write_bytes(b"not a database at all, but long enough to look at" * 100)
    store = SqliteStore(tmp_path / "shop.db", name="shop", runtime=system())
    assert await code_of(store.open()) is Code.DATA_LOSS


# --- killed

CHILD = """
    import asyncio, os, signal, sys
    from dataclasses import replace
    from pathlib import Path
    from linkspan.runtime import system
    from linkspan.stores.sqlite import SqliteStore
    from linkspan.testing.store_probe import INSERT, NOTHING, SCRIPTS, Settled, message, opened

    place, point, how = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    armed = []

    def reached(name):
        if armed and name == point:
            os.kill(os.getpid(), signal.SIGKILL)

    async def main():
        store = SqliteStore(place / "shop.db", name="shop", runtime=system(reached))
        await store.open()
        await store.migrate(SCRIPTS)
        done = Settled()
        await done.submit(store, done.unit(("s", "0"), [(INSERT, ("0", 1))], [message("0")]))
        armed.append(True)
        unit = done.unit(("s", "1"), [(INSERT, ("1", 1))], [message("1")])
        if how == "recorded":
            await done.submit(store, unit)
        else:
            await (await opened(store.begin(unit, NOTHING))).commit()

    asyncio.run(main())
"""


def start(code: str, *args: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), *args], stdout=subprocess.PIPE)


@pytest.mark.parametrize("how", ["recorded", "interactive"])
@pytest.mark.parametrize(("point", "kept"), [("store.commit.before", 1), ("store.commit.after", 2)])
async def test_kill_at_a_commit_leaves_all_or_nothing(tmp_path: Path, point: str, kept: int, how: str) -> None:
    with start(CHILD, str(tmp_path), point, how) as child:
        assert child.wait(30) == -9

    done = Settled()
    async with store_at(tmp_path) as store:
        assert await effects(store) == ["0", "1"][:kept]
        assert [(m.id, m.sequence) for m in await store.unsent(0, 9)] == [("0", 1), ("1", 2)][:kept]
        again = done.unit(("s", "1"), messages=[message("2")])
        assert await done.submit(store, again) == [Outcome.COMMITTED if kept == 1 else Outcome.DUPLICATE]


async def test_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    code = CHILD.replace("armed.append(True)", "print('holding', flush=True); signal.pause()")
    with start(code, str(tmp_path), "", "") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"holding\n"
        with pytest.raises(SetupError, match=rf"open in another process \({child.pid}\).*use PostgreSQL"):
            await SqliteStore(tmp_path / "shop.db", name="shop", runtime=system()).open()
        child.kill()
        child.wait()
    async with store_at(tmp_path) as store:
        assert await effects(store) == ["0"]
