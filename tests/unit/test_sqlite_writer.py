"""How the writer groups, numbers and forgets; what it never does per message."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from linkspan.errors import Code, Error
from linkspan.ports import Outcome
from linkspan.runtime import system
from linkspan.stores.sqlite import SqliteLimits, SqliteStore
from linkspan.stores.sqlite_reader import THREADS
from linkspan.stores.sqlite_rows import repeatable
from linkspan.stores.sqlite_writer import _runs
from linkspan.testing.clock import FakeClock
from linkspan.testing.store_probe import INSERT, NOTHING, SCRIPTS, Settled, effects, message, opened

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine
    from pathlib import Path

    from linkspan.ports import Clock


COUNT = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000000000) select count(*) from n"


class Watch:
    """Counts what a store does: commits by their named points, statements by SQLite's trace."""

    def __init__(self) -> None:
        self.commits = 0
        self.statements: list[str] = []

    def reached(self, name: str) -> None:
        self.commits += name == "store.commit.after"

    def reading(self, words: str) -> int:
        return sum(words in statement for statement in self.statements)


@asynccontextmanager
async def store_at(
    place: Path, limits: SqliteLimits | None = None, clock: Clock | None = None, watch: Watch | None = None
) -> AsyncGenerator[SqliteStore]:
    watch = watch or Watch()
    runtime = system(watch.reached)
    store = SqliteStore(place / "shop.db", name="shop", runtime=replace(runtime, clock=clock or runtime.clock), limits=limits)
    await store.open()
    try:
        await store.migrate(SCRIPTS)
        connection = store._writer.connection
        await store._writer.call(lambda: connection.set_trace_callback(watch.statements.append))
        watch.commits = 0
        yield store
    finally:
        await store.aclose()


@pytest.mark.parametrize(("units", "groups"), [(1, 1), (512, 1), (513, 2), (1500, 3)])
async def test_what_waits_shares_a_commit(tmp_path: Path, units: int, groups: int) -> None:
    done, watch = Settled(), Watch()
    async with store_at(tmp_path, watch=watch) as store:
        await done.submit(store, *(done.unit(("s", str(n)), [(INSERT, (str(n), n))]) for n in range(units)))
        assert watch.commits == groups
        assert await store.read("select count(*) from effect") == [(units,)]


async def test_a_group_of_claims_is_few_statements(tmp_path: Path) -> None:
    done, watch = Settled(), Watch()
    async with store_at(tmp_path, watch=watch) as store:
        await done.submit(store, *(done.unit(("s", str(n)), messages=[message(str(n))]) for n in range(256)))
        assert watch.reading("into linkspan_inbox") == 1
        assert watch.reading("into linkspan_outbox") == 1
        assert watch.reading("begin immediate") == 1


async def test_cached_sequences_are_not_read(tmp_path: Path) -> None:
    done, watch = Settled(), Watch()
    async with store_at(tmp_path, watch=watch) as store:
        await done.submit(store, done.unit(messages=[message("1", "x"), message("2", "y")]))
        assert watch.reading("cross join linkspan_sequence") == 1, "both keys at once"
        await done.submit(store, *(done.unit(messages=[message(str(n), "xy"[n % 2])]) for n in range(100)))
        assert watch.reading("cross join linkspan_sequence") == 1
        assert [m.sequence for m in await store.unsent(0, 200) if m.key == "x"] == list(range(1, 52))


async def test_sequences_beyond_the_memory_are_read_back(tmp_path: Path) -> None:
    done, watch = Settled(), Watch()
    async with store_at(tmp_path, SqliteLimits(sequences=8), watch=watch) as store:
        for _ in range(3):
            await done.submit(store, *(done.unit(messages=[message("m", f"k{n}")]) for n in range(40)))
            assert len(store._writer._sequences._known) <= 8
        found = await store.unsent(0, 200)
        assert [m.sequence for m in found] == [1] * 40 + [2] * 40 + [3] * 40


async def test_commit_that_fails_fails_only_its_unit(tmp_path: Path) -> None:
    """A deferred foreign key is checked by COMMIT itself."""
    done = Settled()
    async with store_at(tmp_path) as store:
        await store.migrate([*SCRIPTS, ("002", "create table child (id text references effect (id) deferrable initially deferred)")])
        orphan = done.unit(("s", "2"), [("insert into child values ('nobody')", ())], [message("lost")])
        good = [done.unit(("s", str(n)), [(INSERT, (str(n), 1))], [message(str(n))]) for n in (1, 3)]
        assert await done.submit(store, good[0], orphan, good[1]) == [Outcome.COMMITTED, Outcome.FAILED, Outcome.COMMITTED]
        assert orphan.error is not None
        assert orphan.error.code is Code.FAILED_PRECONDITION
        assert [(m.id, m.sequence, m.position) for m in await store.unsent(0, 9)] == [("1", 1, 1), ("3", 2, 2)]


async def test_failed_messages_keep_no_place(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path) as store:
        unit = done.unit(statements=[(INSERT, (None, None))], messages=[message("lost")])
        await done.submit(store, unit)
        assert (unit.messages[0].position, unit.messages[0].sequence) == (0, 0)


async def test_sent_rows_are_deleted_after_50_ms(tmp_path: Path) -> None:
    done, clock, watch = Settled(), FakeClock(), Watch()
    async with store_at(tmp_path, clock=clock, watch=watch) as store:
        messages = [message(str(n)) for n in range(10)]
        await done.submit(store, done.unit(messages=messages))
        store.sent(messages[:5])
        store.sent(messages[5:])
        assert all(store.deleting(m.position) for m in messages)
        await clock.advance(0.049)
        assert await rows_after_writer(store) == 10
        await clock.advance(0.002)
        assert await rows_after_writer(store) == 0
        assert watch.reading("delete from linkspan_outbox") == 1, "a run of positions is one statement"
        assert watch.commits == 2
        assert not any(store.deleting(m.position) for m in messages)


async def rows_after_writer(store: SqliteStore) -> int:
    """Count outbox rows once the writer has done what it was given."""
    await store.attest()
    ((count,),) = await store.read("select count(*) from linkspan_outbox")
    return int(count)


async def test_256_sent_rows_do_not_wait(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path, clock=FakeClock()) as store:
        messages = [message(str(n)) for n in range(256)]
        await done.submit(store, done.unit(messages=messages))
        store.sent(messages)
        assert await rows_after_writer(store) == 0


async def test_sent_rows_join_the_next_group(tmp_path: Path) -> None:
    done, watch = Settled(), Watch()
    async with store_at(tmp_path, clock=FakeClock(), watch=watch) as store:
        first = message("1")
        await done.submit(store, done.unit(messages=[first]))
        store.sent([first])
        await done.write(store, "a")
        assert watch.commits == 2
        assert await rows_after_writer(store) == 0


async def test_row_deleted_while_reading_is_not_unsent(tmp_path: Path) -> None:
    """A snapshot taken before the deletion still holds the row; the reader must not send it again."""
    done = Settled()
    async with store_at(tmp_path) as store:
        messages = [message(str(n)) for n in range(3)]
        await done.submit(store, done.unit(messages=messages))
        read, store._readers.read = store._readers.read, None  # type: ignore[method-assign,assignment]  # a reader that is overtaken

        async def slow(sql: str, args: object) -> object:
            rows = await read(sql, args)  # type: ignore[arg-type]  # passed on as it came
            store.sent(messages[:2])
            await done.write(store, "a")
            return rows

        store._readers.read = slow  # type: ignore[method-assign,assignment]  # the same
        assert [m.id for m in await store.unsent(0, 9)] == ["2"]
        assert not store.deleting(messages[0].position)


async def test_submit_gives_the_writer_one_batch_a_turn(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path) as store:
        put, given = store._writer.put, list[object]()

        def counted(work: object) -> None:
            given.append(work)
            put(work)  # type: ignore[arg-type]  # passed on as it came

        store._writer.put = counted  # type: ignore[method-assign]  # counts what crosses to the thread
        await done.submit(store, *(done.unit() for _ in range(50)))
        assert len(given) == 1


async def test_cancelled_statement_is_interrupted(tmp_path: Path) -> None:
    """Without the interrupt each of these would count for minutes, and hold a reader or the writer."""
    done, loop = Settled(), asyncio.get_running_loop()
    async with store_at(tmp_path) as store:
        begun = asyncio.Event()

        def traced(sql: str) -> None:
            if sql == COUNT:
                loop.call_soon_threadsafe(begun.set)

        while len(store._readers._connections) < THREADS:  # one thread may be quick enough to do all of them
            await asyncio.gather(*(store.read("select 1") for _ in range(8)))
        for connection in (store._writer.connection, *store._readers._connections):
            connection.set_trace_callback(traced)
        session = await opened(store.begin(done.unit(), NOTHING))
        works: list[Coroutine[Any, Any, object]] = [store.read(COUNT) for _ in range(4)]
        works += [session.execute(COUNT), store.begin(done.unit(statements=[(COUNT, ())]), NOTHING), store.begin(done.unit(), COUNT)]
        for work in works:
            task = asyncio.ensure_future(work)
            await begun.wait()
            begun.clear()
            task.cancel()
            await asyncio.wait([task])
        await done.write(store, "a")
        assert await effects(store) == ["a"]


async def test_cancelled_commit_still_settles(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path) as store:
        unit = done.unit(statements=[(INSERT, ("a", 1))])
        session = await opened(store.begin(unit, NOTHING))
        commit = asyncio.ensure_future(session.commit())
        await asyncio.sleep(0)
        commit.cancel()
        await done.write(store, "b")
        assert [each.outcome for each in done.order] == [Outcome.COMMITTED] * 2
        assert await effects(store) == ["a", "b"]


async def test_forget_is_bounded(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path, SqliteLimits(forget=10)) as store:
        await done.submit(store, *(done.unit(("s", str(n))) for n in range(25)))
        future = system().clock.now() + 60.0
        assert [await store.forget(future) for _ in range(4)] == [10, 10, 5, 0]


async def test_failing_work_does_not_end_the_writer(tmp_path: Path) -> None:
    done = Settled()
    async with store_at(tmp_path) as store:
        with pytest.raises(ZeroDivisionError):
            await store._writer.call(lambda: 1 // 0)
        await done.write(store, "a")


async def test_unit_before_open_is_turned_away(tmp_path: Path) -> None:
    done = Settled()
    store = SqliteStore(tmp_path / "shop.db", name="shop", runtime=system())
    unit = done.unit()
    assert await done.submit(store, unit) == [Outcome.FAILED]
    for work in (store.read("select 1"), store.begin(done.unit(), NOTHING), store.attest(), store.forget(1.0), store.migrate(SCRIPTS)):
        with pytest.raises(Error) as caught:
            await work
        assert caught.value.code is Code.UNAVAILABLE
    await store.aclose()


async def test_close_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    async with store_at(tmp_path) as store:
        await asyncio.gather(*(store.read("select 1") for _ in range(4)))
    threads = [thread for thread in threading.enumerate() if "linkspan" in thread.name and thread.name.endswith("shop")]
    for thread in threads:
        thread.join(5)  # it has told its end, and is about to be gone
    alive = [thread.name for thread in threads if thread.is_alive()]
    assert alive == []
    assert threading.active_count() <= before + 1, "at most the loop's own executor stays"


@pytest.mark.parametrize(
    ("positions", "ranges"),
    [([], []), ([3], [(3, 3)]), ([4, 2, 3, 9], [(2, 4), (9, 9)]), ([1, 1, 2], [(1, 2)]), ([1, 3, 5], [(1, 1), (3, 3), (5, 5)])],
)
def test_positions_join_to_ranges(positions: list[int], ranges: list[tuple[int, int]]) -> None:
    assert list(_runs(positions)) == ranges


@pytest.mark.parametrize(
    ("sql", "many"),
    [
        ("INSERT into a values (?)", True),
        ("  update a set b = ?", True),
        ("insert into a values (?) returning b", False),
        ("select 1", False),
        ("with x as (select 1) insert into a select * from x", False),
        ("", False),
    ],
)
def test_only_plain_changes_run_for_many_rows(sql: str, many: bool) -> None:
    assert repeatable(sql) is many
