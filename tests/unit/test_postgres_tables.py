"""Linkspan's PostgreSQL tables for Alembic: read from our own SQL, whole."""

from __future__ import annotations

from sqlalchemy import MetaData

from linkspan.stores.postgres_tables import add_tables


def test_the_outbox_is_as_our_own_sql_makes_it() -> None:
    tables = {table.name: table for table in add_tables(MetaData())}
    outbox, process = tables["linkspan_outbox"], tables["linkspan_process"]

    assert [column.name for column in outbox.primary_key] == ["lane", "position"]
    assert [column.name for column in outbox.columns if column.nullable] == []
    assert outbox.c.position.identity is not None
    assert str(process.c.commits.server_default.arg) == "0"
    assert {name for name in tables if name.startswith("linkspan_")} == set(tables)
