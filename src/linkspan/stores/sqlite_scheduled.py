"""Scheduled messages as rows, in a table of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.stores.sqlite_file import QUERIES
from linkspan.stores.sqlite_writer import FORMAT

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from linkspan.ports import Outgoing, Value

    Statement = tuple[str, Sequence[Value]]

__all__ = ["added", "cancelling", "ending", "listed", "taking"]


def added(m: Outgoing, due: float, source: str, now: float) -> Statement:
    """Return the statement that keeps a message until it is due; an id that is there already stays as it is."""
    return QUERIES["scheduled_add"], (FORMAT, due, now, source, m.topic, m.name, m.lane, m.id, m.key, m.headers, m.data)


def cancelling(source: str, id: str) -> Statement:  # noqa: A002 - the CloudEvents word
    """Return the statement that forgets a message; it returns a row where there was one."""
    return QUERIES["scheduled_cancel"], (source, id)


def taking(now: float, limit: int) -> Statement:
    """Return the statement that takes due messages out."""
    return QUERIES["scheduled_take"], (now, limit)


def listed(source: str, after: tuple[float, int], limit: int) -> Statement:
    """Return the query for what waits behind a `(due, position)`."""
    return QUERIES["scheduled_list"], (*after, source, source, limit)


def ending(position: int, source: str, audit: tuple[float, str, str]) -> Callable[[sqlite3.Cursor], bool]:
    """Return what cancels a message by its row, with its audit row of when, who and why; it tells whether there was one."""

    def run(cursor: sqlite3.Cursor) -> bool:
        cursor.execute(QUERIES["scheduled_audit"], (*audit, position, source))
        return cursor.execute(QUERIES["scheduled_remove"], (position, source)).rowcount > 0

    return run
