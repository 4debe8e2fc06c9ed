"""Tables on PostgreSQL: made together by instances that start at once, checked part by part, or left to Alembic."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import alembic.command
import alembic.config
import asyncpg
import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine
from typer.testing import CliRunner

from linkspan.cli.commands import cli
from linkspan.errors import SetupError
from linkspan.ports import Outcome
from linkspan.runtime import system
from linkspan.sqlalchemy import add_tables
from linkspan.stores.postgres import PostgresStore
from linkspan.stores.schema_look import look
from linkspan.testing.store_probe import INSERT, SCRIPTS, Settled, message

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.postgres_runner import PostgresRunner

APP = """
from pathlib import Path

from linkspan import App, Contract, Message, Service, ServiceContract, field, query


contract = Contract("db.orders.v1")


class Ask(Message):
    id: str = field(1)


class Orders(ServiceContract):
    ask = query(Ask, Ask)


orders = Service("orders", Orders, migrations=Path({migrations!r}))


@orders.handles(Orders.ask)
async def ask(ctx, request: Ask) -> Ask:
    return request


app = App(orders)
"""


@pytest.fixture
def schema(request: pytest.FixtureRequest) -> str:
    return request.node.name[-50:].lower().lstrip("_")


async def run(postgres: PostgresRunner, sql: str) -> None:
    connection = await asyncpg.connect(postgres.url())
    await connection.execute(sql)
    await connection.close()


def store_at(postgres: PostgresRunner, schema: str) -> PostgresStore:
    return PostgresStore(postgres.url(schema=schema), name="shop", runtime=system())


async def test_instances_that_start_at_once_make_each_table_once(postgres: PostgresRunner, schema: str) -> None:
    stores = [store_at(postgres, schema) for _ in range(6)]
    slow = ("slow", "create table once (id text); select pg_sleep(0.05);")

    async def start(store: PostgresStore) -> None:
        await store.open()
        await store.migrate([*SCRIPTS, slow])

    await asyncio.gather(*(start(store) for store in stores))
    assert await stores[0].read("select name, ordinal from linkspan_migration order by ordinal") == [(SCRIPTS[0][0], 1), ("slow", 2)]
    for store in stores:
        await store.aclose()


async def test_check_says_exactly_what_differs(postgres: PostgresRunner, schema: str) -> None:
    url = postgres.url(schema=schema)
    assert (await look(url, "shop", SCRIPTS)).findings()[0][0] == "missing"
    store = store_at(postgres, schema)
    await store.open()
    await store.aclose()
    assert (await look(url, "shop", SCRIPTS)).findings() == [("behind", "script 001_effect is not applied: run 'linkspan db upgrade'")]
    store = store_at(postgres, schema)
    await store.open()
    await store.migrate(SCRIPTS)
    await store.aclose()
    assert (await look(url, "shop", SCRIPTS)).current
    assert (await look(url, "shop", [("001_effect", "other")])).wrong == ("001_effect",)
    await run(
        postgres,
        f"""
        drop index {schema}.linkspan_letter_state;
        alter table {schema}.linkspan_letter alter column attempts type bigint;
        alter table {schema}.linkspan_letter alter column code drop not null;
        alter table {schema}.linkspan_outbox add column extra text;
        alter table {schema}.linkspan_letter drop constraint linkspan_letter_once;
        drop table {schema}.linkspan_redriven;
        create index of_the_operator on {schema}.linkspan_letter (received);
        """,
    )
    drift = (await look(url, "shop", SCRIPTS)).drift
    assert set(drift) == {
        "the index linkspan_letter_state is missing",
        "the index linkspan_letter_once is missing",
        "the column linkspan_letter.attempts is 'bigint not null', not 'integer not null'",
        "the column linkspan_letter.code is 'text', not 'text not null'",
        "the column linkspan_outbox.extra is not ours",
        "the constraint linkspan_letter.UNIQUE (topic, source, id) is missing",
        *(f"the column linkspan_redriven.{name} is missing" for name in ("letter", "redrive", "failed")),
        "the constraint linkspan_redriven.PRIMARY KEY (letter, redrive) is missing",
        "the index linkspan_redriven_of is missing",
    }


async def test_role_that_may_not_make_tables_is_told_who_should(postgres: PostgresRunner, schema: str) -> None:
    await run(postgres, f"create role {schema} login password 'x'")
    url = postgres.url(schema=schema).replace(f"//{postgres.user}:{postgres.password}@", f"//{schema}:x@")
    store = PostgresStore(url, name="shop", runtime=system())
    with pytest.raises(SetupError, match="run 'linkspan db upgrade' with one that may"):
        await store.open()


async def test_alembic_sees_no_difference_to_our_own_tables(postgres: PostgresRunner, schema: str) -> None:
    store = store_at(postgres, schema)
    await store.open()
    await store.aclose()
    metadata = sqlalchemy.MetaData()
    add_tables(metadata, schema)
    engine = create_async_engine(postgres.url().replace("postgresql://", "postgresql+asyncpg://"))

    def compared(connection: sqlalchemy.Connection) -> object:
        def ours(name: str | None, kind: str, _names: object) -> bool:
            return kind != "schema" or name == schema

        options = {"include_schemas": True, "include_name": ours, "compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    async with engine.connect() as connection:
        assert await connection.run_sync(compared) == []
    await engine.dispose()


ENVIRONMENT = """
import asyncio
import sqlalchemy
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine
from linkspan.sqlalchemy import add_tables

metadata = sqlalchemy.MetaData()
sqlalchemy.Table("customer", metadata, sqlalchemy.Column("id", sqlalchemy.Text, primary_key=True))
add_tables(metadata)


def migrate(connection):
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()


async def main():
    options = {"server_settings": {"search_path": context.config.get_main_option("schema")}}
    engine = create_async_engine(context.config.get_main_option("sqlalchemy.url"), connect_args=options)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
        await connection.commit()
    await engine.dispose()


asyncio.run(main())
"""


async def test_tables_made_by_alembic_are_taken_as_they_are(postgres: PostgresRunner, schema: str, tmp_path: Path) -> None:
    """A real revision, made by autogenerate from the user's metadata with ours in it, brings an empty schema to what a store wants."""
    await run(postgres, f"create schema {schema}")
    config = alembic.config.Config(str(tmp_path / "alembic.ini"))
    config.set_main_option("script_location", str(tmp_path / "alembic"))
    config.set_main_option("sqlalchemy.url", postgres.url().replace("postgresql://", "postgresql+asyncpg://"))
    config.set_main_option("schema", schema)

    def make() -> None:
        alembic.command.init(config, str(tmp_path / "alembic"))
        (tmp_path / "alembic" / "env.py").write_text(ENVIRONMENT)
        alembic.command.revision(config, "first", autogenerate=True)
        alembic.command.upgrade(config, "head")
        alembic.command.check(config)  # raises when autogenerate finds anything to do

    await asyncio.to_thread(make)
    done = Settled()
    store = store_at(postgres, schema)
    await store.open()
    await store.migrate(SCRIPTS)
    assert await done.submit(store, done.unit(("s", "1"), [(INSERT, ("a", 1))], [message("m")])) == [Outcome.COMMITTED]
    await store.aclose()
    assert (await look(postgres.url(schema=schema), "shop", SCRIPTS)).current


def test_db_commands_make_check_and_upgrade(postgres: PostgresRunner, schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = tmp_path / "migrations"
    scripts.mkdir()
    (scripts / "001.sql").write_text("create table purchase (id text primary key);")
    (tmp_path / f"{schema}_app.py").write_text(APP.format(migrations=str(scripts)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("LINKSPAN_STORE", postgres.url(schema=schema))
    target, runner = f"{schema}_app:app", CliRunner()

    def told(*command: str, code: int = 0) -> str:
        result = runner.invoke(cli, ["db", *command])
        assert (result.exit_code, type(result.exception)) == (code, SystemExit if code else type(None)), result.exception
        assert postgres.password not in result.output
        return result.output

    assert "missing" in told("check", target, code=1)
    assert "create table linkspan_outbox" in told("init", target, "--sql")
    assert "missing" in told("check", target, code=1)
    assert told("init", target) == "orders: 3 steps done\n"
    assert told("init", target) == "orders: up to date already\n"
    assert "current" in told("check", target)
    (scripts / "002.sql").write_text("alter table purchase add column at timestamptz;")
    assert "002" in told("check", target, code=1)
    assert told("upgrade", target) == "orders: 1 steps done\n"
    assert "current" in told("check", target, "--json")
