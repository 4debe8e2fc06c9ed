"""Held letters as rows: parked, waiting and dead ones of all keys in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.stores.rows import claims_of
from linkspan.stores.sqlite_file import QUERIES, written
from linkspan.stores.sqlite_writer import FORMAT

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from linkspan.ports import Letter, LetterState, Value

    Statement = tuple[str, Sequence[Value]]

__all__ = ["added", "changed", "discarding", "due", "expired", "first_of", "heads", "letters", "one", "redriving", "removed"]

_COLUMNS = QUERIES["letter_columns"]


def added(letter: Letter) -> Statement:
    """Return the statement that adds a letter, unless it is there or its message has had its end: handled, or discarded."""
    (source, _), *scoped = claims_of(letter.topic, letter.source, letter.id)
    return QUERIES["letter_add"], (
        FORMAT,
        letter.topic,
        letter.key,
        letter.source,
        letter.id,
        letter.type,
        letter.headers,
        letter.data,
        letter.state.value,
        letter.attempts,
        letter.due,
        letter.code,
        letter.error,
        letter.fingerprint,
        letter.received,
        letter.first_failed,
        letter.last_failed,
        letter.redrives,
        source,
        scoped[0][0] if scoped else source,
        letter.id,
    )


def changed(letter: Letter) -> Statement:
    """Return the statement that stores how a letter stands now."""
    return QUERIES["letter_update"], (
        letter.state.value,
        letter.attempts,
        letter.due,
        letter.code,
        letter.error,
        letter.fingerprint,
        letter.first_failed,
        letter.last_failed,
        letter.redrives,
        letter.position,
    )


def removed(position: int) -> Statement:
    """Return the statement that removes a letter."""
    return QUERIES["letter_remove"], (position,)


def expired(position: int, who: str, at: float) -> list[Statement]:
    """Return the statements that end a letter past its expiry."""
    return [(QUERIES["audit_expired"], (at, who, position)), removed(position)]


def heads(now: float, limit: int) -> Statement:
    """Return the query for the first letters that may run."""
    return f"{_COLUMNS} where {QUERIES['letter_is_head']} order by position limit ?", (now, limit)


def due(service: str, now: float, limit: int) -> Statement:
    """Return the query for a service's letters that are due or redriven."""
    return QUERIES["letter_due"], (limit, now, f"{service}:")


def letters(states: Sequence[LetterState], after: int, limit: int) -> Statement:
    """Return the query for letters in some states above a position, in all states when none is named."""
    chosen = f"and state in ({', '.join('?' * len(states))})" if states else ""
    return f"{_COLUMNS} where position > ? {chosen} order by position limit ?", (after, *(state.value for state in states), limit)


def first_of(topic: str, key: str) -> Statement:
    """Return the query for a key's first letter."""
    return f"{_COLUMNS} where topic = ? and key = ? order by position limit 1", (topic, key)


def one(position: int) -> Statement:
    """Return the query for one letter."""
    return f"{_COLUMNS} where position = ?", (position,)


def redriving(positions: Sequence[int], who: str, why: str, at: float) -> Callable[[sqlite3.Cursor], int]:
    """Return what marks dead letters to be tried again, with an audit row each; it counts them."""

    def run(cursor: sqlite3.Cursor) -> int:
        count = 0
        for position in dict.fromkeys(positions):
            cursor.execute(QUERIES["audit"], (at, "redrive", who, why, position))
            count += cursor.execute(QUERIES["letter_redrive"], (position,)).rowcount
        return count

    return run


def discarding(position: int, who: str, why: str, at: float) -> Callable[[sqlite3.Cursor], bool]:
    """Return what ends a dead letter, with its audit row and its inbox claim; it tells whether there was one."""

    def run(cursor: sqlite3.Cursor) -> bool:
        found = cursor.execute(QUERIES["letter_names"], (position,)).fetchone()
        if found is None:
            return False
        cursor.execute(QUERIES["audit"], (at, "discard", who, why, position))
        written(cursor, "claim", [(source, id_, at) for source, id_ in claims_of(*found)])
        cursor.execute(QUERIES["letter_discard"], (position,))
        return True

    return run
