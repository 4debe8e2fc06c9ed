"""An SQLite file is compared with what it should be, by a reader that changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from linkspan.runtime import system
from linkspan.stores import open_store
from linkspan.stores.schema_look import look, upgrade_sql
from linkspan.testing.store_probe import SCRIPTS

if TYPE_CHECKING:
    from pathlib import Path


async def made(url: str) -> None:
    store = open_store(url, name="shop", runtime=system())
    await store.open()
    await store.migrate(SCRIPTS)
    await store.aclose()


async def test_file_is_missing_then_current_then_drifted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    assert (await look(url, "shop", SCRIPTS)).findings()[0][0] == "missing"
    assert not (tmp_path / "shop.db").exists()
    await made(url)
    assert (await look(url, "shop", SCRIPTS)).current
    more = await look(url, "shop", [*SCRIPTS, ("002", "select 1")])
    assert more.findings() == [("behind", "script 002 is not applied: run 'linkspan db upgrade'")]
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.execute("drop index linkspan_letter_state")
        connection.execute("alter table linkspan_inbox add column extra text")
        connection.commit()
    assert (await look(url, "shop", SCRIPTS)).drift == (
        "the index linkspan_letter_state is missing",
        "the table linkspan_inbox is not as it was made",
    )


async def test_printed_sql_makes_what_a_store_wants(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shop.db"
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.executescript(upgrade_sql(url, "shop", 0))
    assert (await look(url, "shop", [])).current
    await made(url)
    assert (await look(url, "shop", SCRIPTS)).current
    newest = (await look(url, "shop", SCRIPTS)).newest
    assert upgrade_sql(url, "shop", newest) == ""
