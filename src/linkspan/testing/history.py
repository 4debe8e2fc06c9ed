"""Check what happened: nothing acknowledged is lost, nothing happens twice, order per key holds.

Every process under test appends to one file outside of it; the checker reads the file and, for effects, what the databases
hold. Linear in the number of entries. A check that cannot fail is worth nothing: `tests/unit/test_history.py` feeds it
faulty histories and each must be caught.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Entry", "History", "Kind", "Violation", "check"]


class Kind(Enum):
    """What an entry says about a message."""

    INVOKED = "invoked"
    """A caller asked for it; its end is not known yet."""
    ACKNOWLEDGED = "acknowledged"
    """The caller was told that it is safe: it must have its effect, exactly once."""
    REFUSED = "refused"
    """The caller was told no: it must have no effect."""
    EFFECT = "effect"
    """A consumer's database holds its effect."""
    DEAD = "dead"
    """A consumer holds it as a dead letter: neither lost nor done."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a history. `number` counts a key's messages in the order of their acknowledgement, from 1; 0 where order is not asked."""

    kind: Kind
    id: str
    key: str = ""
    number: int = 0
    consumer: str = ""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise: `rule` is lost, double, ghost, refused or order."""

    rule: str
    consumer: str
    id: str
    text: str


class History:
    """An append-only file of entries that survives the death of its writers."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, entry: Entry) -> None:
        """Append one entry with a single write, so that lines of several processes never mix."""
        line = json.dumps({**asdict(entry), "kind": entry.kind.value}) + "\n"
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def read(self) -> list[Entry]:
        """Return all entries; a last line that was cut off by a crash was never acknowledged and is left out."""
        if not self._path.exists():
            return []
        entries: list[Entry] = []
        for line in self._path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):
                fields: dict[str, Any] = json.loads(line)
                entries.append(Entry(Kind(fields.pop("kind")), **fields))
        return entries


def check(entries: Iterable[Entry], consumers: Iterable[str]) -> list[Violation]:
    """Return every broken promise. Effects are in the order in which their consumer's database holds them.

    An invoked message without an answer is *unknown*: it may have its effect or not, but not twice.
    """
    invoked: dict[str, Entry] = {}
    acknowledged: dict[str, Entry] = {}
    refused: set[str] = set()
    effects: dict[str, list[Entry]] = defaultdict(list)
    dead: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        match entry.kind:
            case Kind.INVOKED:
                invoked[entry.id] = entry
            case Kind.ACKNOWLEDGED:
                acknowledged[entry.id] = entry
            case Kind.REFUSED:
                refused.add(entry.id)
            case Kind.EFFECT:
                effects[entry.consumer].append(entry)
            case Kind.DEAD:
                dead[entry.consumer].add(entry.id)
    found: list[Violation] = []
    for consumer in consumers:
        found += _lost(consumer, acknowledged, effects[consumer], dead[consumer])
        found += _wrong(consumer, invoked, acknowledged, refused, effects[consumer])
        found += _order(consumer, effects[consumer])
    return found


def _lost(consumer: str, acknowledged: dict[str, Entry], effects: list[Entry], dead: set[str]) -> list[Violation]:
    there = {entry.id for entry in effects} | dead
    return [Violation("lost", consumer, id_, "It was acknowledged and has no effect.") for id_ in acknowledged if id_ not in there]


def _wrong(
    consumer: str, invoked: dict[str, Entry], acknowledged: dict[str, Entry], refused: set[str], effects: list[Entry]
) -> list[Violation]:
    found: list[Violation] = []
    seen: set[str] = set()
    for entry in effects:
        if entry.id in seen:
            found.append(Violation("double", consumer, entry.id, "It has its effect more than once."))
        seen.add(entry.id)
        if entry.id in refused:
            found.append(Violation("refused", consumer, entry.id, "It was refused and has an effect."))
        elif entry.id not in invoked and entry.id not in acknowledged:
            found.append(Violation("ghost", consumer, entry.id, "It has an effect and nobody asked for it."))
    return found


def _order(consumer: str, effects: list[Entry]) -> list[Violation]:
    found: list[Violation] = []
    last: dict[str, int] = {}
    for entry in effects:
        if entry.number and entry.number < last.get(entry.key, 0):
            text = f"Number {entry.number} of its key came after {last[entry.key]}."
            found.append(Violation("order", consumer, entry.id, text))
        last[entry.key] = max(entry.number, last.get(entry.key, 0))
    return found
