"""The sequence of each (topic, key), numbered in commit order by the one writer."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from linkspan.stores.sqlite_file import in_chunks, written

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from linkspan.ports import Outgoing

__all__ = ["Sequences"]


class Sequences:
    """Last numbers by key: a bounded memory over the table, which each transaction brings up to date.

    `number` reads the table only for keys that are not remembered, all of a group at once. Nothing is remembered
    before `confirm`, so a rolled back transaction leaves no trace. `pending` is what the open transaction has numbered so
    far, never changed in place: put an earlier value back with its savepoint.
    """

    __slots__ = ("_bound", "_known", "pending")

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._known: dict[tuple[str, str], int] = {}
        self.pending: dict[tuple[str, str], int] = {}

    def number(self, cursor: sqlite3.Cursor, messages: Sequence[Outgoing]) -> list[int]:
        """Return the next number for each message, and write the last ones of the transaction that is open."""
        known = self._known
        keys = [(message.topic, message.key) for message in messages]
        last = {key: self.pending[key] for key in keys if key in self.pending} if self.pending else {}
        missing = list({key for key in keys if key not in known and key not in last})
        last.update(dict.fromkeys(missing, 0))
        if missing:
            for sql, values in in_chunks("sequence_load", missing):
                last.update({(topic, key): number for topic, key, number in cursor.execute(sql, values)})
        numbers: list[int] = []
        for key in keys:
            last[key] = number = (last[key] if key in last else known[key]) + 1
            numbers.append(number)
        written(cursor, "sequence_store", [(topic, key, number) for (topic, key), number in last.items()])
        self.pending = {**self.pending, **last} if self.pending else last
        return numbers

    def confirm(self) -> None:
        """Remember what was committed; forget the longest known beyond the bound."""
        known = self._known
        known.update(self.pending)
        self.pending = {}
        if len(known) > self._bound:
            for key in list(islice(known, len(known) - self._bound * 3 // 4)):
                del known[key]

    def undo(self) -> None:
        """Forget what was numbered in a transaction that was rolled back."""
        self.pending = {}
