"""Scheduled messages as rows, in a table of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.stores.postgres_sql import QUERIES
from linkspan.stores.postgres_steps import FORMAT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linkspan.ports import Outgoing, Value

    Statement = tuple[str, Sequence[Value]]

__all__ = ["added", "cancelling", "taking"]


def added(m: Outgoing, due: float, source: str, now: float) -> Statement:
    """Return the statement that keeps a message until it is due; an id that is there already stays as it is."""
    return QUERIES["scheduled_add"], (FORMAT, due, now, source, m.topic, m.name, m.lane, m.id, m.key, m.headers, m.data)


def cancelling(source: str, id: str) -> Statement:  # noqa: A002 - the CloudEvents word
    """Return the statement that forgets a message; it returns a row where there was one."""
    return QUERIES["scheduled_cancel"], (source, id)


def taking(now: float, limit: int) -> Statement:
    """Return the statement that takes due messages out, when it is its transaction's turn."""
    return QUERIES["scheduled_take"], (now, limit)
