"""Every store passes the public contract suite."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from linkspan.stores.postgres import PostgresStore
from linkspan.stores.sqlite import SqliteStore
from linkspan.testing.store_contract import StoreContract
from linkspan.testing.store_lanes import SharedScenarios

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan.ports import Runtime, Store
    from tests.integration.postgres_runner import PostgresRunner


class TestSqlite(StoreContract):
    def make_store(self, place: Path, runtime: Runtime, *, exclusive: bool = True) -> Store:
        return SqliteStore(place / "shop.db", name="shop", runtime=runtime, exclusive=exclusive)


class TestPostgres(SharedScenarios, StoreContract):
    TRIGGER = """
        create function tell() returns trigger language plpgsql as $$
            begin insert into note values (new.id); insert into note values ('t'); return new; end;
        $$;
        create trigger t after insert on effect for each row execute function tell();
    """

    @pytest.fixture(autouse=True)
    def _server(self, postgres: PostgresRunner) -> None:
        self.postgres = postgres

    def make_store(self, place: Path, runtime: Runtime, *, exclusive: bool = True) -> Store:
        schema = f"shop_{hashlib.blake2b(str(place).encode(), digest_size=8).hexdigest()}"
        return PostgresStore(self.postgres.url(schema=schema), name="shop", runtime=runtime, exclusive=exclusive)
