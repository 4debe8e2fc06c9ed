"""Recorded statements: in order where order can be seen, joined where that changes nothing but the time it takes.

Every step is a round trip, so handlers that write two tables each would cost two round trips a message. Statements that touch
one table each, of tables that have nothing to do with each other, may change places: they are gathered by table, in order within it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from itertools import groupby
from typing import TYPE_CHECKING

from linkspan.stores.postgres_sql import table_of, translated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from linkspan.ports import Value
    from linkspan.stores.postgres_place import Connection

    Statement = tuple[str, Sequence[Value]]

__all__ = ["Known", "PlainInsert", "Rows"]

_NAMES = r"\(\s*\w+(?:\s*,\s*\w+)*\s*\)"
_PLAIN = re.compile(
    rf"\s*(insert\s+into\s+\w+(?:\.\w+)?\s*(?:{_NAMES}\s*)?)values\s*\(\s*(\$1(?:\s*,\s*\$[0-9]+)*)\s*\)\s*"
    rf"(on\s+conflict\s*(?:{_NAMES}\s*)?do\s+nothing)?\s*;?\s*",
    re.IGNORECASE | re.ASCII,
)
_CHANGES = re.compile(r"\s*(insert|update|delete|merge)\b(?!.*\breturning\b)", re.IGNORECASE | re.DOTALL)
_REMEMBERED = 1024

# A table whose rows nothing looks at but statements that name it: no triggers, rules, policies, children, no defaults or checks by
# functions of the user. With it, all tables that it refers to by foreign keys, however far.
_ALONE = """
with recursive above (oid) as (
  select confrelid from pg_constraint where conrelid = to_regclass($1) and contype = 'f'
  union select c.confrelid from above join pg_constraint c on c.conrelid = above.oid and c.contype = 'f'
)
select t.oid::bigint, array(select oid::bigint from above) from pg_class t where t.oid = to_regclass($1)
  and t.relkind = 'r' and not t.relhasrules and not t.relhassubclass and not t.relrowsecurity
  and not exists (select 1 from pg_trigger where tgrelid = t.oid and not tgisinternal)
  and not exists (
    select 1 from pg_depend d where d.refclassid = 'pg_proc'::regclass and (
      (d.classid = 'pg_attrdef'::regclass and d.objid in (select oid from pg_attrdef where adrelid = t.oid))
      or (d.classid = 'pg_constraint'::regclass and d.objid in (select oid from pg_constraint where conrelid = t.oid))
    )
  )
"""


class PlainInsert:
    """An insert of nothing but its parameters, which can take any number of rows at once: one array for each column."""

    __slots__ = ("_conflict", "_into", "_types", "text", "width")

    def __init__(self, into: str, types: Sequence[str], conflict: str) -> None:
        self._into = into
        self._types = types
        self._conflict = conflict
        self.width = len(types)
        self.text = self.numbered(1)

    def numbered(self, first: int) -> str:
        """Return the statement with its parameters from a number on."""
        arrays = ", ".join(f"${number}::{each}[]" for number, each in enumerate(self._types, first))
        return f"{self._into}select * from unnest({arrays}) {self._conflict}"  # noqa: S608 - the user's own statement

    def of_one(self, first: int) -> str:
        """Return the same for one row: no arrays."""
        values = ", ".join(f"${number}" for number in range(first, first + self.width))
        return f"{self._into}values ({values}) {self._conflict}"


class Known:
    """What the connections of a store have learnt about statements and tables; forgotten when a statement fails, as tables may change."""

    __slots__ = ("joined", "tables", "whole")

    def __init__(self) -> None:
        self.joined: dict[str, PlainInsert | None] = {}
        self.tables: dict[str, tuple[int, frozenset[int]] | None] = {}
        self.whole: dict[tuple[object, ...], str] = {}

    def forget(self) -> None:
        """Learn anew."""
        self.joined.clear()
        self.tables.clear()
        self.whole.clear()


class _Shelf:
    """Statements of one table, or of tables that foreign keys join, in order."""

    __slots__ = ("above", "oids", "statements")

    def __init__(self) -> None:
        self.oids: set[int] = set()
        self.above: dict[int, frozenset[int]] = {}
        self.statements: list[tuple[int, str, Sequence[Value]]] = []

    def meets(self, oid: int, above: frozenset[int]) -> bool:
        """Tell whether a table belongs here."""
        return oid in self.oids or not above.isdisjoint(self.oids) or any(oid in each for each in self.above.values())

    def take(self, other: _Shelf) -> None:
        """Take in another shelf whose tables turn out to be joined with these; neither order between the two was promised."""
        self.oids |= other.oids
        self.above |= other.above
        self.statements += other.statements

    def runs(self) -> Iterable[tuple[str, list[Sequence[Value]], bool]]:
        """Yield equal statements together, and whether their rows may be one step: not where they refer to each other.

        Where all are plain inserts, rows that are referred to come first.
        """
        if len(self.oids) > 1 and all(_PLAIN.fullmatch(sql) for _, sql, _ in self.statements):
            with suppress(CycleError):
                above = {oid: each & (self.oids - {oid}) for oid, each in self.above.items()}
                order = list(TopologicalSorter(above).static_order())
                self.statements.sort(key=lambda each: order.index(each[0]))
        for (oid, sql), group in groupby(self.statements, key=lambda each: each[:2]):
            yield sql, [args for _, _, args in group], oid not in self.above[oid]


class Rows:
    """Runs recorded statements on one connection."""

    __slots__ = ("_connection", "_known")

    def __init__(self, connection: Connection, known: Known) -> None:
        self._connection = connection
        self._known = known

    async def run(self, statements: Iterable[Statement]) -> None:
        """Run all."""
        try:
            await self._run([(translated(sql), args) for sql, args in statements])
        except Exception:
            self._known.forget()
            raise

    async def inserts(self, statements: Iterable[Statement]) -> list[tuple[PlainInsert, list[Sequence[Value]]]] | None:
        """Return the rows of each table where statements only insert into tables that nothing else looks at, None where there is more.

        Tables with foreign keys are more: those are checked at the end of a statement, by then the counters of keys would be locked.
        """
        found: dict[str, list[Sequence[Value]]] = {}
        for given, args in statements:
            sql = translated(given)
            rows = found.get(sql)
            if rows is None:
                rows = found[sql] = []
            rows.append(args)
        result: list[tuple[PlainInsert, list[Sequence[Value]]]] = []
        oids: set[int] = set()
        for sql, rows in found.items():
            table = await self._table(sql)
            insert = None if table is None or table[1] or table[0] in oids else await self._join(sql)
            if table is None or insert is None or any(len(args) != insert.width for args in rows):
                return None
            oids.add(table[0])
            result.append((insert, rows))
        return result

    async def _run(self, statements: Sequence[Statement]) -> None:
        if len(statements) == 1:
            await self._connection.fetch(statements[0][0], *statements[0][1])
            return
        shelves: list[_Shelf] = []
        for sql, args in statements:
            table = await self._table(sql)
            if table is None:
                await self._clear(shelves)
                await self._connection.fetch(sql, *args)
                continue
            oid, above = table
            shelf = self._shelf(shelves, oid, above)
            shelf.oids.add(oid)
            shelf.above[oid] = above
            shelf.statements.append((oid, sql, args))
        await self._clear(shelves)

    @staticmethod
    def _shelf(shelves: list[_Shelf], oid: int, above: frozenset[int]) -> _Shelf:
        """Return the shelf of a table; shelves that it joins become one."""
        met = [shelf for shelf in shelves if shelf.meets(oid, above)]
        if not met:
            shelves.append(_Shelf())
            return shelves[-1]
        for other in met[1:]:
            met[0].take(other)
            shelves.remove(other)
        return met[0]

    async def _clear(self, shelves: list[_Shelf]) -> None:
        for shelf in shelves:
            for sql, rows, may_join in shelf.runs():
                await self._run_of(sql, rows, may_join=may_join)
        shelves.clear()

    async def _table(self, sql: str) -> tuple[int, frozenset[int]] | None:
        """Return the table that a statement is about, and those it refers to; None where there may be more to it."""
        name = table_of(sql)
        if not name:
            return None
        tables = self._known.tables
        if name not in tables:
            if len(tables) > _REMEMBERED:
                tables.clear()
            row = await self._connection.fetchrow(_ALONE, name)
            tables[name] = None if row is None else (row[0], frozenset(row[1]))
        return tables[name]

    async def _run_of(self, sql: str, rows: list[Sequence[Value]], *, may_join: bool) -> None:
        if len(rows) == 1:
            await self._connection.fetch(sql, *rows[0])
            return
        joined = await self._join(sql) if may_join else None
        if joined is not None and all(len(args) == joined.width for args in rows):
            await self._connection.fetch(joined.text, *columns_of(rows, joined.width))
        elif _CHANGES.match(sql):
            await self._connection.executemany(sql, rows)
        else:
            for args in rows:
                await self._connection.fetch(sql, *args)

    async def _join(self, sql: str) -> PlainInsert | None:
        """Return the insert of any number of rows that a statement is, None where it is another."""
        joined = self._known.joined
        if sql not in joined:
            if len(joined) > _REMEMBERED:
                joined.clear()
            joined[sql] = await self._plain_insert(sql)
        return joined[sql]

    async def _plain_insert(self, sql: str) -> PlainInsert | None:
        match = _PLAIN.fullmatch(sql)
        names = [name.strip() for name in match[2].split(",")] if match else []
        if match is None or names != [f"${number}" for number in range(1, len(names) + 1)]:
            return None
        types = (await self._connection.prepare(sql)).get_parameters()
        if any(each.kind != "scalar" for each in types):
            return None
        return PlainInsert(match[1], [f'"{each.schema}"."{each.name}"' for each in types], match[3] or "")


def columns_of(rows: Sequence[Sequence[Value]], width: int) -> list[list[Value]]:
    """Turn rows into columns."""
    return [[args[index] for args in rows] for index in range(width)]
