"""Recorded statements in order; equal ones in a row become one step where that changes nothing but the time it takes."""

from __future__ import annotations

import re
import sqlite3
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

from linkspan.stores.sqlite_file import ROWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from linkspan.ports import Value
    from linkspan.stores.sqlite_file import Guard

__all__ = ["Rows", "plain_insert", "repeatable"]

_NAMES = r"\(\s*\w+(?:\s*,\s*\w+)*\s*\)"
_PLAIN = re.compile(rf"\s*insert\s+into\s+(\w+)\s*(?:{_NAMES}\s*)?values\s*\(\s*(\?(?:\s*,\s*\?)*)\s*\)", re.IGNORECASE | re.ASCII)
_REMEMBERED = 1024

# Within one statement, SQLite checks a reference to the same table only at the end, and a trigger may look at other rows.
_BY_ROW = """
select exists (select 1 from sqlite_master where type = 'trigger' and tbl_name = ?1 collate nocase)
  or exists (select 1 from sqlite_temp_master where type in ('trigger', 'table', 'view') and tbl_name = ?1 collate nocase)
  or exists (select 1 from pragma_foreign_key_list(?1) where "table" = ?1 collate nocase)
"""


class Rows:
    """Runs recorded statements on the writer's cursor. Each step gives the GIL away, so a step for many rows is worth most under load."""

    __slots__ = ("_cursor", "_guard", "_limit", "_schema", "_widths")

    def __init__(self, connection: sqlite3.Connection, guard: Guard) -> None:
        self._cursor = connection.cursor()
        self._guard = guard
        self._limit = connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        self._schema = guard.schema
        self._widths: dict[str, int] = {}

    def run(self, statements: Iterable[tuple[str, Sequence[Value]]], following: str = "") -> None:
        """Run all; `following` is the statement that comes next, which may ask how many rows the last one changed."""
        waiting: list[Sequence[Value]] = []
        current = ""
        for sql, args in statements:
            if sql != current:
                if waiting:
                    self._run_of(current, waiting, sql)
                current, waiting = sql, []
            waiting.append(args)
        if waiting:
            self._run_of(current, waiting, following)

    def _run_of(self, sql: str, rows: list[Sequence[Value]], following: str) -> None:
        if len(rows) == 1:
            self._cursor.execute(sql, rows[0])
            return
        width = self._width(sql)
        if width and not _counts(following) and all(type(args) is tuple and len(args) == width for args in rows):
            self._insert(sql, width, rows)
        elif repeatable(sql):
            self._cursor.executemany(sql, rows)
        else:
            for args in rows:
                self._cursor.execute(sql, args)

    def _insert(self, sql: str, width: int, rows: list[Sequence[Value]]) -> None:
        """Insert rows in statements of few sizes."""
        start = 0
        for size in ROWS:
            while len(rows) - start >= size and size * width <= self._limit:
                self._cursor.execute(_of_rows(sql, width, size), list(chain.from_iterable(rows[start : start + size])))
                start += size

    def _width(self, sql: str) -> int:
        """Return how many values a row has when rows of this statement may share a step, 0 when they may not."""
        if self._schema != self._guard.schema or len(self._widths) > _REMEMBERED:
            self._schema = self._guard.schema
            self._widths.clear()
        found = self._widths.get(sql)
        if found is None:
            table, width = plain_insert(sql) or ("", 0)
            found = self._widths[sql] = 0 if not width or self._cursor.execute(_BY_ROW, (table,)).fetchone()[0] else width
        return found


@lru_cache(maxsize=_REMEMBERED)
def plain_insert(sql: str) -> tuple[str, int] | None:
    """Return table and width of `insert into table [(columns)] values (?, ...)`, None for anything else."""
    match = _PLAIN.fullmatch(sql)
    return (match[1], match[2].count("?")) if match else None


@lru_cache(maxsize=_REMEMBERED)
def _of_rows(sql: str, width: int, rows: int) -> str:
    """Return a plain insert for so many rows."""
    return sql + f", ({', '.join('?' * width)})" * (rows - 1)


@lru_cache(maxsize=_REMEMBERED)
def _counts(sql: str) -> bool:
    """Tell whether a statement may ask for `changes()`, which are those of the last row alone."""
    return "changes" in sql.lower()


@lru_cache(maxsize=_REMEMBERED)
def repeatable(sql: str) -> bool:
    """Tell whether the driver runs it for many rows: changes without an answer."""
    words = sql.split(None, 1)
    return bool(words) and words[0].lower() in {"insert", "update", "delete", "replace"} and "returning" not in sql.lower()
