"""A group as one statement: what it inserts and the messages of its units, in one round trip and without begin and commit (ADR 24).

The parts of such a statement see one snapshot and have no order of their own, so only inserts of nothing but parameters take part, each
into a table of its own that nothing looks at. The counters of keys stay the last that a transaction locks: they are written by a part
that reads what the user's inserts return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.stores.postgres_rows import columns_of
from linkspan.stores.postgres_sql import QUERIES
from linkspan.stores.postgres_steps import adding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linkspan.ports import Outgoing, Unit, Value
    from linkspan.stores.postgres_place import Connection
    from linkspan.stores.postgres_rows import Known, PlainInsert, Rows
    from linkspan.stores.postgres_steps import Numbers

__all__ = ["Whole", "places_found", "whole_of"]

_TURN = "linkspan_turn as (update linkspan_process set commits = ${}::bigint where id = ${}::bigint)"


class Whole:
    """One statement and its parameters, but for the number that it gives to the row of the process."""

    __slots__ = ("_inserts", "_known", "_messages")

    def __init__(self, inserts: Sequence[tuple[PlainInsert, list[Sequence[Value]]]], messages: Sequence[Outgoing], known: Known) -> None:
        self._inserts = inserts
        self._messages = messages
        self._known = known

    async def run(self, connection: Connection, *, number: int, process: int, now: float) -> list[Numbers]:
        """Commit, and return the place of each message."""
        query, arguments = adding(self._messages, now) if self._messages else ("", [])
        single = all(len(rows) == 1 for _, rows in self._inserts)
        text = self._text(query, len(arguments), single=single)
        arguments += (number, process)
        for insert, rows in self._inserts:
            arguments += rows[0] if single else columns_of(rows, insert.width)
        answer = await connection.fetch(text, *arguments)
        return [(row[0], row[1]) for row in answer] if self._messages else []

    def _text(self, query: str, last: int, *, single: bool) -> str:
        texts = self._known.whole
        key = (query, single, *(insert.text for insert, _ in self._inserts))
        found = texts.get(key)
        if found is None:
            found = texts[key] = _written(query, last, [insert for insert, _ in self._inserts], single=single)
        return found


def _written(query: str, last: int, inserts: Sequence[PlainInsert], *, single: bool) -> str:
    """Write the statement around the query for the messages, whose last parameter has this number."""
    parts, conditions, first = [_TURN.format(last + 1, last + 2)], list[str](), last + 3
    for index, insert in enumerate(inserts, 1):
        parts.append(f"linkspan_{index} as ({insert.of_one(first) if single else insert.numbered(first)} returning 1)")
        conditions.append(f"(select count(*) from linkspan_{index}) >= 0")  # noqa: S608 - a number of ours
        first += insert.width
    before, when = f"with {', '.join(parts)}", f"where {' and '.join(conditions)}" if conditions else ""
    if not query:
        return f"{before} select 1"
    return QUERIES[query].replace("with ", f"{before}, ", 1).replace("/* when */", when, 1)


async def whole_of(units: Sequence[Unit], messages: Sequence[Outgoing], rows: Rows, known: Known) -> Whole | None:
    """Return units as one statement, None where they are more than inserts and messages."""
    if any(unit.inbox is not None or unit.mark is not None or unit.fence is not None for unit in units):
        return None
    inserts = await rows.inserts(statement for unit in units for statement in unit.statements)
    return None if inserts is None or not (inserts or messages) else Whole(inserts, messages, known)


async def places_found(connection: Connection, messages: Sequence[Outgoing]) -> list[Numbers]:
    """Look up the places of messages whose answer was lost; (0, 0) for those that have been sent since."""
    if not messages:
        return []
    rows = await connection.fetch(QUERIES["outbox_found"], sorted({m.lane for m in messages}), [m.id for m in messages])
    found = {row[0]: (row[1], row[2]) for row in rows}
    return [found.get(message.id, (0, 0)) for message in messages]
