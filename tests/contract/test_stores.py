"""Every store passes the public contract suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.stores.sqlite import SqliteStore
from linkspan.testing.store_contract import StoreContract

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan.ports import Runtime, Store


class TestSqlite(StoreContract):
    def make_store(self, place: Path, runtime: Runtime, *, exclusive: bool = True) -> Store:
        return SqliteStore(place / "shop.db", name="shop", runtime=runtime, exclusive=exclusive)
