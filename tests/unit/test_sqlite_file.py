"""The file: who may open it, what format it has, how it is set, what a commit to it is worth; and which URL names it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from linkspan.envelope import claim
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import LetterState
from linkspan.runtime import system
from linkspan.stores import open_store
from linkspan.stores.sqlite import SqliteStore
from linkspan.stores.sqlite_attest import mount_of
from linkspan.stores.sqlite_errors import coded
from linkspan.stores.sqlite_file import QUERIES, own_scripts, statements_of
from linkspan.testing.store_letters import hold
from linkspan.testing.store_probe import INSERT, NOTHING, SCRIPTS, Settled, letter, opened

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any


def store_at(place: Path, *, exclusive: bool = True) -> SqliteStore:
    return SqliteStore(place / "shop.db", name="shop", runtime=system(), exclusive=exclusive)


async def code_of(work: Coroutine[Any, Any, object]) -> Code:
    with pytest.raises(Error) as caught:
        await work
    return caught.value.code


def names(place: Path) -> list[str]:
    return [path.name for path in place.iterdir()]


def change(place: Path, *statements: str) -> list[tuple[Any, ...]]:
    """Change a closed file as a person with a shell would."""
    connection = sqlite3.connect(place / "shop.db")
    try:
        found = [row for statement in statements for row in connection.execute(statement).fetchall()]
        connection.commit()
        return found
    finally:
        connection.close()


# --- opening


async def test_second_opener_in_the_process_is_refused(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    await store.open()
    with pytest.raises(SetupError, match="use PostgreSQL"):
        await store_at(tmp_path).open()
    await store.aclose()
    again = store_at(tmp_path)
    await again.open()
    await again.aclose()


async def test_store_opens_once(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    await store.open()
    with pytest.raises(SetupError, match="make a new one"):
        await store.open()
    await store.aclose()
    with pytest.raises(SetupError, match="make a new one"):
        await store.open()


@pytest.mark.parametrize("exclusive", [True, False])
async def test_newer_format_is_refused(tmp_path: Path, exclusive: bool) -> None:
    store = store_at(tmp_path)
    await store.open()
    await store.aclose()
    change(tmp_path, "update linkspan_meta set value = '99' where name = 'format'")
    with pytest.raises(SetupError, match=r"has format 99.*use a newer linkspan"):
        await store_at(tmp_path, exclusive=exclusive).open()


async def test_user_tables_that_were_there_stay(tmp_path: Path) -> None:
    change(tmp_path, "create table older (id text)", "insert into older values ('x')")
    store = store_at(tmp_path)
    await store.open()
    assert await store.read("select id from older") == [("x",)]
    await store.aclose()
    assert change(tmp_path, "select value from linkspan_meta") == [(str(own_scripts()[-1][0]),)]


async def test_beside_needs_a_store(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="run the service once"):
        await store_at(tmp_path, exclusive=False).open()
    assert names(tmp_path) == []
    change(tmp_path, "create table foreign_table (id text)")
    with pytest.raises(SetupError, match="older format"):
        await store_at(tmp_path, exclusive=False).open()


async def test_beside_changes_only_letters(tmp_path: Path) -> None:
    done = Settled()
    store, beside = store_at(tmp_path), store_at(tmp_path, exclusive=False)
    await store.open()
    await store.migrate(SCRIPTS)
    (held,) = await hold(store, letter("1"))
    await beside.open()
    assert await code_of(beside.begin(done.unit(), NOTHING)) is Code.FAILED_PRECONDITION
    assert await code_of(beside.migrate(SCRIPTS)) is Code.FAILED_PRECONDITION
    refused = done.unit(statements=[(INSERT, ("a", 1))])
    await done.submit(beside, refused)
    assert refused.error is not None
    assert await beside.depth() == (0, 0.0)
    assert await beside.discard(held.position, who="ada", why="test", at=5.0)
    assert await store.letters() == []
    await beside.aclose()
    await store.aclose()


async def test_beside_works_while_no_service_runs(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    await store.open()
    await store.migrate(SCRIPTS)
    (held,) = await hold(store, letter("1"))
    await store.aclose()
    beside = store_at(tmp_path, exclusive=False)
    await beside.open()
    assert await beside.redrive([held.position], who="ada", why="fixed", at=5.0) == 1
    await beside.aclose()
    assert change(tmp_path, "select state from linkspan_letter") == [("redrive",)]


async def test_what_people_do_is_audited(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    await store.open()
    await store.migrate(SCRIPTS)
    one, two, _ = await hold(store, letter("1"), letter("2"), letter("3", state=LetterState.WAITING))
    await store.redrive([one.position, 3, 77], who="ada", why="fixed", at=5.0)
    await store.discard(two.position, who="bob", why="test order", at=6.0)
    await store.discard(3, who="bob", why="not dead", at=7.0)
    await store.aclose()
    rows = change(tmp_path, "select at, action, who, why, letter, id, fingerprint from linkspan_audit order by position")
    assert rows == [(5.0, "redrive", "ada", "fixed", 1, "1", "f00d"), (6.0, "discard", "bob", "test order", 2, "2", "f00d")]


async def test_discard_claims_for_the_service_that_shares_a_store(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    await store.open()
    await store.migrate(SCRIPTS)
    done = Settled()
    shared = letter("1")
    shared.topic = "payments:shop.commands"
    (held,) = await hold(store, shared)
    await store.discard(held.position, who="ada", why="test", at=1.0)
    unit = done.unit(claim("payments", "orders", "1"))
    await done.submit(store, unit)
    assert unit.outcome is not None
    assert unit.outcome.value == "duplicate"
    await store.aclose()


# --- settings


async def test_every_connection_is_set(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    await store.open()
    found = await store.attest()
    assert (found.facts["journal_mode"], found.facts["synchronous"]) == ("wal", "2")
    assert await store.read("pragma synchronous") == [(2,)]
    assert await store.read("pragma query_only") == [(1,)]
    await store.aclose()


@pytest.mark.parametrize(
    "sql", ["pragma synchronous = off", "PRAGMA JOURNAL_MODE = delete", "attach ':memory:' as x", "pragma query_only(0)"]
)
async def test_settings_belong_to_the_store(tmp_path: Path, sql: str) -> None:
    store = store_at(tmp_path)
    await store.open()
    assert await code_of(store.read(sql)) is Code.INVALID_ARGUMENT
    done = Settled()
    session = await opened(store.begin(done.unit(), NOTHING))
    assert await code_of(session.execute(sql)) is Code.INVALID_ARGUMENT
    await session.rollback()
    assert await store.read("pragma table_info(linkspan_meta)") != []
    assert (await store.attest()).facts["synchronous"] == "2"
    await store.aclose()


MOUNTS = """\
/dev/sda / ext4 rw,relatime 0 0
tmpfs /run tmpfs rw 0 0
server:/x /mnt/my\\040share nfs4 rw 0 0
/dev/sdb /fast xfs rw,nobarrier 0 0
"""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/srv/shop.db", ("ext4", "rw,relatime")),
        ("/run/x/shop.db", ("tmpfs", "rw")),
        ("/running/shop.db", ("ext4", "rw,relatime")),
        ("/mnt/my share/shop.db", ("nfs4", "rw")),
        ("/fast/shop.db", ("xfs", "rw,nobarrier")),
    ],
)
def test_mount_is_found(path: str, found: tuple[str, str]) -> None:
    assert mount_of(Path(path), MOUNTS) == found


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="not run: no memory file system here")
async def test_memory_file_system_lowers_the_promise(request: pytest.FixtureRequest) -> None:
    path = Path("/dev/shm") / f"linkspan-{system().ids.new()}.db"
    request.addfinalizer(lambda: [each.unlink() for each in path.parent.glob(f"{path.name}*")])
    store = SqliteStore(path, name="shop", runtime=system())
    await store.open()
    found = await store.attest()
    await store.aclose()
    assert found.level == "process"
    assert "kept in memory" in found.reasons[0]


# --- text


def test_scripts_are_cut_into_statements() -> None:
    script = "-- one; two\nselect ';'; create trigger t after insert on a begin select 1; select 2; end;\n/* ; */ select 3"
    assert [part.strip() for part in statements_of(script)] == [
        "-- one; two\nselect ';';",
        "create trigger t after insert on a begin select 1; select 2; end;",
        "/* ; */ select 3",
    ]


def test_queries_are_named() -> None:
    assert all(sql and not sql.startswith("--") for sql in QUERIES.values())


@pytest.mark.parametrize(
    ("sql", "code", "text"),
    [
        ("insert into t values (1)", Code.ALREADY_EXISTS, "broke a constraint: UNIQUE constraint failed: t.id"),
        ("insert into t values (-1)", Code.FAILED_PRECONDITION, "broke a constraint: CHECK constraint failed: id > 0"),
        ("insert into t values (null)", Code.FAILED_PRECONDITION, "broke a constraint: NOT NULL constraint failed: t.id"),
        ("selct 'secret'", Code.INTERNAL, "failed: syntax error"),
        ("select 'secret", Code.INTERNAL, "failed: syntax error"),
        ("select id from nowhere", Code.INTERNAL, "failed: no such table: nowhere"),
        ("select 1; select 2", Code.INTERNAL, "one statement at a time"),
    ],
)
def test_failures_are_coded_without_values(sql: str, code: Code, text: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (id integer not null unique check (id > 0))")
    connection.execute("insert into t values (1)")
    with pytest.raises((sqlite3.Error, sqlite3.Warning)) as caught:
        connection.execute(sql)
    connection.close()
    error = coded("shop", caught.value)
    assert error.code is code
    assert text in error.message
    assert "secret" not in error.message


# --- urls


@pytest.mark.parametrize(("url", "path"), [("sqlite:///shop.db", "shop.db"), ("sqlite:////var/a%20b/shop.db", "/var/a b/shop.db")])
def test_url_names_a_file(url: str, path: str) -> None:
    store = open_store(url, name="shop", runtime=system())
    assert isinstance(store, SqliteStore)
    assert store.path == Path(path)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://db/shop?schema=pg_own", "schema 'pg_own' of store 'shop' cannot be used"),
        ("postgres://db/shop?sessions=many", "number of sessions of store 'shop' is 'many'"),
        ("mysql://db/shop", "'mysql://' is not known: use one of sqlite:"),
        ("shop.db", "is not known"),
        ("sqlite://", "must name a file"),
        ("sqlite:///", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("sqlite://host/shop.db", "must name a file"),
        ("sqlite:///shop.db?mode=ro", "must name a file"),
    ],
)
def test_other_urls_are_refused(url: str, text: str) -> None:
    with pytest.raises(SetupError, match=text):
        open_store(url, name="shop", runtime=system())
