"""SQL text for PostgreSQL, and its URLs: what needs no server."""

from __future__ import annotations

import pytest

from linkspan.errors import Code, Error
from linkspan.stores import own_url, without_password
from linkspan.stores.postgres_place import Place
from linkspan.stores.postgres_sql import statements_of, translated


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("select ?, ?", "select $1, $2"),
        ("select '?', E'\\'?', \"?\", ?", "select '?', E'\\'?', \"?\", $1"),
        ("select $$ ? $$, $t$ ? $$ $t$, ?", "select $$ ? $$, $t$ ? $$ $t$, $1"),
        ("select ? -- ?\n, /* ? /* ? */ ? */ ?", "select $1 -- ?\n, /* ? /* ? */ ? */ $2"),
        ("select a ?? 'x' and b = ?", "select a ? 'x' and b = $1"),
        ("select a ? 'x' and b = $1", "select a ? 'x' and b = $1"),
        ("set local work_mem = '8MB'", "set local work_mem = '8MB'"),
    ],
)
def test_question_marks_become_numbers_where_they_are_parameters(given: str, wanted: str) -> None:
    assert translated(given) == wanted


@pytest.mark.parametrize(
    "sql", ["commit", "/* x */ BEGIN", "-- x\nrollback to a", "set search_path = a", "reset all", "prepare transaction 'x'"]
)
def test_what_belongs_to_the_store_is_refused(sql: str) -> None:
    with pytest.raises(Error) as refused:
        translated(sql)
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_scripts_are_cut_at_the_ends_of_statements() -> None:
    script = """
        insert into a values ('x;y'); create function f() begin atomic select case when 1 then 2 end; select 2; end;
        do $$ begin; end $$;; -- end
    """
    assert [each[:6] for each in statements_of(script)] == ["insert", "create", "do $$ "]


def test_schema_is_the_services_name_unless_it_is_given() -> None:
    assert own_url("postgres://u@h/db", "order-desk") == "postgres://u@h/db?schema=order_desk"
    assert own_url("postgres://u@h/db?sslmode=require", "shop") == "postgres://u@h/db?sslmode=require&schema=shop"
    assert own_url("postgres://u@h/db?schema=x", "shop") == "postgres://u@h/db?schema=x"
    assert own_url("sqlite:///x.db", "shop") == "sqlite:///x.db"
    place = Place.of("postgres://u:secret@h/db?schema=x&sessions=3&sslmode=require", name="shop")
    assert (place.schema, place.limits.sessions, place.dsn) == ("x", 3, "postgresql://u:secret@h/db?sslmode=require")
    assert "secret" not in repr(place)


def test_shown_url_has_no_password() -> None:
    assert without_password("postgres://u:secret@h:5/db?password=secret&schema=x") == "postgres://u@h:5/db?schema=x"
    assert without_password("sqlite:///a:b@c.db") == "sqlite:///a:b@c.db"
