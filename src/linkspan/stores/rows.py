"""Stored rows as values: what is the same in every store, whatever its SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan.envelope import claim
from linkspan.ports import Letter, LetterState, Outgoing, Scheduled

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["claims_of", "letter_of", "scheduled_of"]


def letter_of(row: Sequence[Any]) -> Letter:
    """Read a held letter."""
    topic, key, source, id_, type_, headers, data, state, *rest = row
    return Letter(topic, key, source, id_, type_, headers, data, LetterState(state), *rest)


def claims_of(topic: str, source: str, id_: str) -> list[tuple[str, str]]:
    """Return the inbox ids that keep a message away for good; a topic `service:name` holds letters of one of several services."""
    service, colon, _ = topic.partition(":")
    return [(source, id_), claim(service, source, id_)] if colon else [(source, id_)]


def scheduled_of(rows: Sequence[Sequence[Any]]) -> list[Scheduled]:
    """Read scheduled messages, earliest first: databases return deleted ones in any order."""
    return sorted(map(_scheduled, rows), key=lambda row: (row.due, row.position))


def _scheduled(row: Sequence[Any]) -> Scheduled:
    due, source, *message, position = row
    return Scheduled(Outgoing(*message), due, source, position)
