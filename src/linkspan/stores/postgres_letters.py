"""Held letters as rows: parked, waiting and dead ones of all keys in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan.stores.postgres_sql import QUERIES
from linkspan.stores.postgres_steps import FORMAT
from linkspan.stores.rows import claims_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from linkspan.ports import Letter, LetterState, Value

    Statement = tuple[str, Sequence[Value]]
    Query = tuple[str, Sequence[object]]

__all__ = ["added", "changed", "due", "expired", "first_of", "heads", "keys", "letters", "one", "removed"]

_COLUMNS = QUERIES["letter_columns"]


def added(letter: Letter) -> tuple[str, Sequence[Any]]:
    """Return the statement that adds a letter, unless it is there or its message has had its end: handled, or discarded."""
    return QUERIES["letter_add"], (
        FORMAT,
        letter.lane,
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
        [source for source, _ in claims_of(letter.topic, letter.source, letter.id)],
    )


def changed(letter: Letter) -> Statement:
    """Return the statement that stores how a letter stands now."""
    return QUERIES["letter_update"], (
        letter.position,
        letter.state.value,
        letter.attempts,
        letter.due,
        letter.code,
        letter.error,
        letter.fingerprint,
        letter.first_failed,
        letter.last_failed,
        letter.redrives,
    )


def expired(position: int, who: str, at: float) -> Statement:
    """Return the statement that ends a letter past its expiry, audited."""
    return QUERIES["letter_expire"], (at, who, position)


def removed(position: int) -> Statement:
    """Return the statement that removes a letter."""
    return QUERIES["letter_remove"], (position,)


def keys(lanes: Collection[int] | None) -> Query:
    """Return the query for the keys that have letters."""
    return QUERIES["letter_keys"], (None if lanes is None else list(lanes),)


def heads(now: float, limit: int, lanes: Collection[int] | None) -> Query:
    """Return the query for the first letters that may run."""
    return f"{_COLUMNS} where {QUERIES['letter_is_head']}", (now, limit, None if lanes is None else list(lanes))


def due(service: str, now: float, limit: int, lanes: Collection[int]) -> Query:
    """Return the query for a service's letters that are due or redriven, lane by lane."""
    return QUERIES["letter_due"], (now, limit, list(lanes), f"{service}:")


def letters(states: Sequence[LetterState], after: int, limit: int) -> Query:
    """Return the query for letters in some states above a position, in all states when none is named."""
    chosen = "and state = any ($3::text[])" if states else ""
    args = (after, limit, [state.value for state in states]) if states else (after, limit)
    return f"{_COLUMNS} where position > $1::bigint {chosen} order by position limit $2::int", args


def first_of(topic: str, key: str) -> Query:
    """Return the query for a key's first letter."""
    return f"{_COLUMNS} where topic = $1::text and key = $2::text order by position limit 1", (topic, key)


def one(position: int) -> Query:
    """Return the query for one letter."""
    return f"{_COLUMNS} where position = $1::bigint", (position,)
