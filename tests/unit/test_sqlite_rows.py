"""Equal recorded statements in a row share a step only where nobody can tell."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st

from linkspan.errors import Code
from linkspan.ports import Outcome
from linkspan.stores.sqlite_file import Guard
from linkspan.stores.sqlite_rows import Rows, plain_insert
from linkspan.testing.store_probe import INSERT, Settled, effects
from tests.unit.test_sqlite_writer import Watch, store_at

if TYPE_CHECKING:
    from pathlib import Path

TABLES = """
create table plain (id integer, line text);
create table own (id integer primary key, parent integer references own (id));
create table watched (id integer);
create table log (id integer, seen integer);
create trigger watching after insert on watched begin insert into log values (new.id, (select count(*) from watched)); end;
create table wide (a, b, c, d);
"""


def opened(guard: Guard | None = None) -> tuple[sqlite3.Connection, Rows, list[str]]:
    guard = guard or Guard()
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.set_authorizer(guard)
    connection.execute("pragma foreign_keys = on")
    connection.executescript(TABLES)
    steps: list[str] = []
    rows = Rows(connection, guard)
    connection.set_trace_callback(lambda sql: steps.append(sql) if sql.lower().startswith("insert") else None)
    return connection, rows, steps


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        (INSERT, ("effect", 2)),
        ("INSERT INTO t VALUES(?)", ("t", 1)),
        ("\n insert into t (a)\nvalues ( ? , ? )", ("t", 2)),
        ("insert into t values (?, 1)", None),
        ("insert into t values (?1, ?2)", None),
        ("insert into t values (?), (?)", None),
        ("insert into t values (?) returning a", None),
        ("insert into t values (?) on conflict do nothing", None),
        ("insert into t values (?);", None),
        ("insert into t values (?) -- why", None),
        ("insert or ignore into t values (?)", None),
        ("insert into t select ?", None),
        ("insert into t values (:a)", None),
        ("update t set a = ?", None),
    ],
)
def test_only_plain_inserts_are_recognised(sql: str, found: object) -> None:
    assert plain_insert(sql) == found


def test_equal_inserts_are_few_steps_in_order() -> None:
    connection, rows, steps = opened()
    rows.run(("insert into plain values (?, ?)", (n, str(n))) for n in range(600))
    assert len(steps) == 2 + 1 + 1 + 1, "600 is 256 + 256 + 64 + 16 + 8"
    assert connection.execute("select id, line from plain order by rowid").fetchall() == [(n, str(n)) for n in range(600)]


def test_rows_that_see_each_other_are_one_step_each() -> None:
    connection, rows, _ = opened()
    rows.run([("insert into watched values (?)", (n,)) for n in range(3)])
    assert connection.execute("select * from log").fetchall() == [(0, 1), (1, 2), (2, 3)]
    with pytest.raises(sqlite3.IntegrityError):
        rows.run([("insert into own values (?, ?)", (2, 1)), ("insert into own values (?, ?)", (1, None))])


def test_a_new_trigger_is_noticed() -> None:
    connection, rows, steps = opened()
    many = [("insert into plain values (?, ?)", (n, "")) for n in range(4)]
    rows.run(many)
    assert len(steps) == 1
    rows.run([("create trigger late after insert on plain begin insert into log values (new.id, 0); end", ())])
    rows.run(many)
    assert connection.execute("select count(*) from log").fetchone() == (4,)
    assert "insert into plain values (3, '')" in steps, "one row a step now"


def test_changes_are_those_of_the_last_row() -> None:
    connection, rows, _ = opened()
    many = [("insert into plain values (?, ?)", (n, "")) for n in range(4)]
    rows.run([*many, ("insert into log values (0, changes())", ())])
    rows.run(many, "select changes()")
    assert connection.execute("select changes()").fetchone() == (1,)
    assert connection.execute("select seen from log").fetchone() == (1,)


def test_few_variables_make_small_steps() -> None:
    connection, _, steps = opened()
    connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 9)
    Rows(connection, Guard()).run([("insert into wide values (?, ?, ?, ?)", (n, n, n, n)) for n in range(5)])
    assert len(steps) == 3
    assert connection.execute("select count(*) from wide").fetchone() == (5,)


VALUES = st.one_of(st.none(), st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=3), st.binary(max_size=3))
SHAPES = st.sampled_from(
    [
        "insert into plain values (?, ?)",
        "insert into plain (line, id) values (?, ?)",
        "insert into own values (?, ?)",
        "insert into wide (a, d) values (?, ?)",
        "insert or replace into own values (?, ?)",
        "update plain set line = ? where id = ?",
    ]
)


@given(st.lists(st.tuples(SHAPES, st.lists(st.lists(VALUES, min_size=1, max_size=3).map(tuple), max_size=20))))
def test_both_ways_give_the_same_tables(runs: list[tuple[str, list[tuple[Any, ...]]]]) -> None:
    results: list[object] = []
    statements = [(sql, args) for sql, many in runs for args in many]
    for together in (True, False):
        connection, rows, _ = opened()
        connection.execute("begin")
        try:
            if together:
                rows.run(statements)
            else:
                for statement in statements:
                    connection.execute(*statement)
        except (sqlite3.Error, OverflowError):
            connection.execute("rollback")
            results.append("failed")
        else:
            results.append([connection.execute(f"select rowid, * from {name}").fetchall() for name in ("plain", "own", "wide")])
        connection.close()
    assert results[0] == results[1]


async def test_a_failing_row_fails_alone(tmp_path: Path) -> None:
    done, watch = Settled(), Watch()
    async with store_at(tmp_path, watch=watch) as store:
        units = [done.unit(("s", str(n)), [(INSERT, (f"r{n:02}", n))]) for n in range(20)]
        await done.submit(store, *units)
        assert watch.reading("insert into effect") == 2, "16 and 4"
        more = [done.unit(("t", str(n)), [(INSERT, (f"t{n}", None if n == 3 else n))]) for n in range(6)]
        more[4].statements[0] = (INSERT, ("t4",))
        outcomes = await done.submit(store, *more)
        assert [n for n, outcome in enumerate(outcomes) if outcome is Outcome.FAILED] == [3, 4]
        assert [unit.error and unit.error.code for unit in more[3:5]] == [Code.FAILED_PRECONDITION, Code.INTERNAL]
        assert (await effects(store))[-4:] == ["t0", "t1", "t2", "t5"]
