"""Recorded statements on PostgreSQL: few steps for many, and never another result than one after the other."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from linkspan.stores.postgres_rows import Known, Rows

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.integration.postgres_runner import PostgresRunner

TABLES = """
create temp table purchase (id text primary key);
create temp table line (id text primary key, purchase text not null references purchase);
create temp table balance (id text primary key, total bigint not null);
create temp table chain (id text primary key, before text references chain);
create temp table watched (id text primary key);
create temp table seen (id text, others bigint);
create function pg_temp.look() returns trigger language plpgsql as $$
  begin insert into seen values (new.id, (select count(*) from balance)); return new; end;
$$;
create trigger look before insert on watched for each row execute function pg_temp.look();
"""
PURCHASE = "insert into purchase (id) values (?)"
LINE = "insert into line (id, purchase) values (?, ?)"
ADD = "insert into balance (id, total) values (?, ?) on conflict (id) do update set total = balance.total + excluded.total"
TAKE = "update balance set total = total - ? where id = ?"


class Counted(Rows):
    """Rows that remember their steps: the statement, and for how many rows."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        super().__init__(connection, Known())
        self.steps: list[tuple[str, int]] = []

    async def _run_of(self, sql: str, rows: list[Any], *, may_join: bool) -> None:
        self.steps.append((sql, len(rows)))
        await super()._run_of(sql, rows, may_join=may_join)


class Steps:
    """A connection with some tables."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.connection = connection
        self.rows = Counted(connection)

    async def run(self, *statements: tuple[str, tuple[str | int | None, ...]]) -> None:
        """Run in a transaction."""
        async with self.connection.transaction():
            await self.rows.run(statements)


@asynccontextmanager
async def steps(postgres: PostgresRunner) -> AsyncGenerator[Steps]:
    connection = await asyncpg.connect(postgres.url())
    try:
        await connection.execute(TABLES)
        yield Steps(connection)
    finally:
        await connection.close()


async def test_two_tables_a_unit_are_two_steps_for_all(postgres: PostgresRunner) -> None:
    async with steps(postgres) as on:
        await on.run(*(each for n in range(9) for each in ((PURCHASE, (f"p{n}",)), (ADD, ("a", n)))))
        assert [count for _, count in on.rows.steps] == [9, 9]
        assert await on.connection.fetchval("select total from balance") == 36
        assert await on.connection.fetchval("select count(*) from purchase") == 9


async def test_statements_of_one_table_keep_their_order(postgres: PostgresRunner) -> None:
    async with steps(postgres) as on:
        await on.run(
            (ADD, ("a", 10)), (TAKE, (3, "a")), (PURCHASE, ("p",)), ("update balance set total = total * ?", (2,)), (ADD, ("a", 1))
        )
        assert await on.connection.fetchval("select total from balance") == 15


async def test_rows_that_are_referred_to_come_first(postgres: PostgresRunner) -> None:
    async with steps(postgres) as on:
        await on.run(*(each for n in range(5) for each in ((PURCHASE, (f"p{n}",)), (LINE, (f"a{n}", f"p{n}")), (LINE, (f"b{n}", f"p{n}")))))
        assert [count for _, count in on.rows.steps] == [5, 10]
        assert await on.connection.fetchval("select count(*) from line") == 10


async def test_tables_that_refer_to_each_other_keep_their_order_once_rows_go(postgres: PostgresRunner) -> None:
    gone = "delete from purchase where id = ?"
    async with steps(postgres) as on:
        await on.run((PURCHASE, ("p",)), (gone, ("p",)), (PURCHASE, ("p",)), (LINE, ("a", "p")))
        assert await on.connection.fetchval("select count(*) from line") == 1
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await on.run((PURCHASE, ("q",)), (LINE, ("b", "q")), (gone, ("q",)))


async def test_row_that_refers_to_a_later_one_of_its_table_is_refused(postgres: PostgresRunner) -> None:
    chain = "insert into chain (id, before) values (?, ?)"
    async with steps(postgres) as on:
        await on.run((chain, ("1", None)), (chain, ("2", "1")), (chain, ("3", "2")))
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await on.run((chain, ("4", "5")), (chain, ("5", None)))


async def test_trigger_sees_what_stands_before_it_and_nothing_else(postgres: PostgresRunner) -> None:
    watched = "insert into watched values (?)"
    async with steps(postgres) as on:
        await on.run((ADD, ("a", 1)), (watched, ("1",)), (ADD, ("b", 1)), (watched, ("2",)), (watched, ("3",)), (ADD, ("c", 1)))
        assert [tuple(row) for row in await on.connection.fetch("select * from seen order by id")] == [("1", 1), ("2", 2), ("3", 2)]


async def test_statement_that_reads_another_table_stays_in_its_place(postgres: PostgresRunner) -> None:
    note = "insert into seen select ?, count(*) from balance"
    async with steps(postgres) as on:
        await on.run((note, ("0",)), (ADD, ("a", 1)), (note, ("1",)), (ADD, ("b", 1)), (note, ("2",)))
        assert [tuple(row) for row in await on.connection.fetch("select * from seen order by id")] == [("0", 0), ("1", 1), ("2", 2)]


async def test_table_that_changed_is_learnt_anew(postgres: PostgresRunner) -> None:
    add = "insert into balance values (?, ?)"
    async with steps(postgres) as on:
        await on.run((add, ("a", 1)), (add, ("b", 2)))
        await on.connection.execute("alter table balance alter column total type text")
        with pytest.raises((asyncpg.PostgresError, asyncpg.DataError)):
            await on.run((add, ("c", "x")), (add, ("d", "y")))
        await on.run((add, ("c", "x")), (add, ("d", "y")))
        assert await on.connection.fetchval("select count(*) from balance") == 4
