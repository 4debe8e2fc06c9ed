"""Recorded inserts and their messages as one statement that is a whole transaction: when it is taken, and that it changes nothing else."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from linkspan.errors import Code
from linkspan.ports import Outcome
from linkspan.runtime import system
from linkspan.stores.postgres import PostgresStore
from linkspan.testing.store_probe import INSERT, NOTHING, SCRIPTS, Settled, effects, message, opened

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from linkspan.ports import Value
    from tests.integration.postgres_runner import PostgresRunner

MORE = """
create table child (id text primary key, effect text not null references effect);
create table watched (id text primary key);
create table seen (effects bigint);
create function look() returns trigger language plpgsql as $$
  begin insert into seen select count(*) from effect; return new; end;
$$;
create trigger look before insert on watched for each row execute function look();
"""
_LOOKS = re.compile("pg_class|typeinfo_tree|current_setting")
NOTE = "insert into note (line) values (?)"


@pytest.fixture
def schema(request: pytest.FixtureRequest) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in request.node.name.lower())[-50:].lstrip("_0123456789")


class Opened:
    """A store, and the statements that its writer has sent since `forget`."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.done = Settled()
        self.sent: list[str] = []
        assert store._writer._connection is not None
        store._writer._connection.add_query_logger(self._hear)

    def _hear(self, record: Any) -> None:
        self.sent.append(record.query)

    async def commit(self, *units: list[tuple[str, tuple[Value, ...]]], key: str = "k") -> list[Outcome | None]:
        """Commit units of statements with a message each, together; what they teach of tables is looked up before."""
        found = [self.done.unit(None, statements, [message(f"m{number}", key)]) for number, statements in enumerate(units)]
        self.sent.clear()
        return await self.done.submit(self.store, *found)

    @property
    def steps(self) -> list[str]:
        """Return the first words of what was sent, without the look-ups of tables and types."""
        return [" ".join(query.split()[:2]) for query in self.sent if not _LOOKS.search(query)]


@asynccontextmanager
async def stored(postgres: PostgresRunner, schema: str) -> AsyncGenerator[Opened]:
    store = PostgresStore(postgres.url(schema=schema), name="shop", runtime=system())
    await store.open()
    try:
        await store.migrate([*SCRIPTS, ("002_more", MORE)])
        yield Opened(store)
    finally:
        await store.aclose()


@pytest.mark.parametrize("count", [1, 40])
async def test_inserts_and_messages_are_one_statement(postgres: PostgresRunner, schema: str, count: int) -> None:
    async with stored(postgres, schema) as on:
        units = [[(INSERT, (f"r{number}", number)), (NOTE, (f"n{number}",))] for number in range(count)]
        assert set(await on.commit(*units)) == {Outcome.COMMITTED}
        assert on.steps == ["with linkspan_turn"]
        assert len(await effects(on.store)) == count
        assert await on.store.read("select line from note order by ctid") == [(f"n{number}",) for number in range(count)]
        kept = await on.store.unsent(0, 99)
        assert [(each.id, each.sequence) for each in kept] == [(f"m{number}", number + 1) for number in range(count)]
        assert [each.position for each in kept] == [unit.messages[0].position for unit in on.done.order]


async def test_messages_alone_and_rows_alone_are_one_statement_too(postgres: PostgresRunner, schema: str) -> None:
    async with stored(postgres, schema) as on:
        assert await on.commit([]) == [Outcome.COMMITTED]
        assert on.steps == ["with linkspan_turn"]
        on.sent.clear()
        await on.done.write(on.store, "alone")
        assert on.steps == ["with linkspan_turn"]
        assert (await effects(on.store), len(await on.store.unsent(0, 9))) == (["alone"], 1)


@pytest.mark.parametrize(
    ("second", "question", "answer"),
    [
        (("update effect set amount = amount + 1 where id = ?", ("a",)), "select amount from effect", 2),
        (("insert into effect (amount, id) values (?, ?)", (2, "b")), "select count(*) from effect", 2),
        (("insert into note (line) select id from effect", ()), "select line from note", "a"),
        (("insert into child (id, effect) values (?, ?)", ("c", "a")), "select effect from child", "a"),
        (("insert into watched (id) values (?)", ("w",)), "select effects from seen", 1),
        (("insert into note (line) values (?) returning line", ("n",)), "select line from note", "n"),
    ],
    ids=["the same row", "one table twice", "a read", "a foreign key", "a trigger", "an answer"],
)
async def test_what_may_see_another_part_goes_step_by_step(
    postgres: PostgresRunner, schema: str, second: tuple[str, tuple[Value, ...]], question: str, answer: str | int
) -> None:
    """Parts of one statement do not see what the others did."""
    async with stored(postgres, schema) as on:
        assert await on.commit([(INSERT, ("a", 1)), second]) == [Outcome.COMMITTED]
        assert (on.steps[0].startswith("begin"), on.steps[-1]) == (True, "commit")
        assert await on.store.read(question) == [(answer,)]


async def test_unit_that_fails_writes_nothing_and_costs_the_others_nothing(postgres: PostgresRunner, schema: str) -> None:
    async with stored(postgres, schema) as on:
        await on.done.write(on.store, "r2")
        outcomes = await on.commit(*([(INSERT, (f"r{number}", 1)), (NOTE, (f"n{number}",))] for number in range(5)))
        assert [outcome is Outcome.COMMITTED for outcome in outcomes] == [True, True, False, True, True]
        failed = next(unit for unit in on.done.order if unit.outcome is Outcome.FAILED)
        assert failed.error is not None
        assert failed.error.code is Code.ALREADY_EXISTS
        assert [line for (line,) in await on.store.read("select line from note order by line")] == ["n0", "n1", "n3", "n4"]
        assert [(each.id, each.sequence) for each in await on.store.unsent(0, 9)] == [("m0", 1), ("m1", 2), ("m3", 3), ("m4", 4)]


async def test_user_rows_are_waited_for_before_the_counter_of_a_key_is_locked(postgres: PostgresRunner, schema: str) -> None:
    """Else a session that holds such a row, and publishes under the same key, and the group would wait for each other."""
    async with stored(postgres, schema) as on:
        assert await on.commit([]) == [Outcome.COMMITTED]
        session = await opened(on.store.begin(on.done.unit(), NOTHING))
        await session.execute(INSERT, ("contested", 1))
        waiting = asyncio.ensure_future(on.commit([(INSERT, ("contested", 2))]))
        beside = await asyncpg.connect(postgres.url())
        try:
            stuck = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'with linkspan_turn%'"
            async with asyncio.timeout(20):
                while not await beside.fetchval(stuck):
                    assert not waiting.done()
            assert await beside.fetchval(f"select last from {schema}.linkspan_sequence where key = 'k' for update skip locked") == 1
        finally:
            await beside.close()
        await session.rollback()
        assert await waiting == [Outcome.COMMITTED]


async def test_tables_that_change_are_looked_at_again_after_a_failure(postgres: PostgresRunner, schema: str) -> None:
    async with stored(postgres, schema) as on:
        assert await on.commit([(NOTE, ("n",))]) == [Outcome.COMMITTED]
        await on.store.migrate([*SCRIPTS, ("002_more", MORE), ("003_wider", "alter table note add column more text default 'x' not null")])
        assert await on.commit([(NOTE, ("again",))]) == [Outcome.COMMITTED]
        assert await on.store.read("select line, more from note where line = 'again'") == [("again", "x")]
