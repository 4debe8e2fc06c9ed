"""The steps of a transaction that are ours, for groups and sessions alike: fences, marks, claims, messages, the commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from linkspan.ports import Outcome
from linkspan.stores.postgres_sql import QUERIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from linkspan.ports import Outgoing, Runtime, Unit
    from linkspan.stores.postgres_place import Connection

    Mark: TypeAlias = tuple[str, str, str]
    Numbers: TypeAlias = tuple[int, int]

__all__ = [
    "FORMAT",
    "Judged",
    "Overtaken",
    "Undone",
    "claimed",
    "ended",
    "judged",
    "mark_lets_in",
    "move_marks",
    "place",
    "write_messages",
]

FORMAT = 1
"""The version of what stored rows hold."""


class Overtaken(Exception):  # noqa: N818 - a state of the database, carried to where the work is tried again
    """Somebody else has moved a mark since it was read."""


class Undone(Exception):  # noqa: N818 - as above
    """The server answered a commit with a rollback."""


class Judged:
    """What becomes of units: those that are to be written, and how the others end.

    `moves` are the marks to be set at the end, each with what it was before (-1: it was not there).
    """

    __slots__ = ("fresh", "moves", "others")

    def __init__(self) -> None:
        self.fresh: list[Unit] = []
        self.others: list[tuple[Unit, Outcome]] = []
        self.moves: dict[Mark, tuple[int, int]] = {}


async def judged(connection: Connection, units: Sequence[Unit], runtime: Runtime) -> Judged:
    """Decide by fence, mark and inbox, in this order, what becomes of units; those that are fresh have claimed their ids."""
    result = Judged()
    passing = await _passing(connection, units, result) if any(unit.fence or unit.mark for unit in units) else units
    first: dict[tuple[str, str], Unit] = {}
    for unit in passing:
        if unit.inbox is not None:
            first.setdefault(unit.inbox, unit)
    new = await claimed(connection, first, runtime) if first else set[tuple[str, str]]()
    for unit in passing:
        if unit.inbox is None or (unit.inbox in new and first[unit.inbox] is unit):
            result.fresh.append(unit)
        else:
            result.others.append((unit, Outcome.DUPLICATE))
    return result


async def _passing(connection: Connection, units: Sequence[Unit], result: Judged) -> list[Unit]:
    """Return the units whose fence stands and whose mark lets them in."""
    epochs = await _epochs(connection, {unit.fence[:2] for unit in units if unit.fence})
    last = await _marks(connection, {unit.mark[:3] for unit in units if unit.mark})
    passing: list[Unit] = []
    for unit in units:
        if unit.fence and epochs.get(unit.fence[:2]) != unit.fence[2]:
            result.others.append((unit, Outcome.MOVED))
            continue
        if unit.mark:
            mark, sequence = unit.mark[:3], unit.mark[3]
            before = last.get(mark)
            refused = _refused(unit, before)
            if refused:
                result.others.append((unit, refused))
                continue
            result.moves[mark] = (result.moves[mark][0] if mark in result.moves else -1 if before is None else before, sequence)
            last[mark] = sequence
        passing.append(unit)
    return passing


def _refused(unit: Unit, before: int | None) -> Outcome | None:
    """Tell how a unit ends by its mark, None when it may go on."""
    if unit.mark is None or before is None:
        return None
    sequence = unit.mark[3]
    if sequence <= before:
        return Outcome.DUPLICATE
    return Outcome.GAP if sequence > before + 1 and not unit.skip_gap else None


async def _epochs(connection: Connection, fences: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """Lock lanes against being taken until the commit, and return their epochs."""
    wanted = sorted(fences)
    if not wanted:
        return {}
    rows = await connection.fetch(QUERIES["fences"], [service for service, _ in wanted], [lane for _, lane in wanted])
    return {(row[0], row[1]): row[2] for row in rows}


async def _marks(connection: Connection, marks: Iterable[Mark]) -> dict[Mark, int]:
    wanted = list(marks)
    if not wanted:
        return {}
    rows = await connection.fetch(QUERIES["marks"], *_columns(wanted, 3))
    return {(row[0], row[1], row[2]): row[3] for row in rows}


async def mark_lets_in(connection: Connection, unit: Unit) -> Outcome | None:
    """Move one unit's mark; return how the unit ends where it may not, None where the mark was moved."""
    if unit.mark is None:
        return None
    mark, sequence = unit.mark[:3], unit.mark[3]
    while True:
        before = (await _marks(connection, [mark])).get(mark)
        refused = _refused(unit, before)
        if refused is not None:
            return refused
        try:
            await move_marks(connection, {mark: (-1 if before is None else before, sequence)})
        except Overtaken:  # by one that has committed since; it is seen now
            continue
        return None


async def move_marks(connection: Connection, moves: dict[Mark, tuple[int, int]]) -> None:
    """Set marks. Raises `Overtaken` when one is not what it was."""
    if not moves:
        return
    rows = [(*mark, after, before) for mark, (before, after) in moves.items()]
    status = await connection.execute(QUERIES["mark_move"], *_columns(rows, 5))
    if int(status.rpartition(" ")[2]) != len(rows):
        raise Overtaken


async def claimed(connection: Connection, claims: Iterable[tuple[str, str]], runtime: Runtime) -> set[tuple[str, str]]:
    """Insert inbox ids; return those that are new. Waits for a transaction that has just claimed one of them."""
    wanted = list(claims)
    runtime.reached("inbox.claim.before")
    rows = await connection.fetch(QUERIES["claim"], *_columns(wanted, 2), runtime.clock.now())
    runtime.reached("inbox.claim.after")
    return {(row[0], row[1]) for row in rows}


async def write_messages(connection: Connection, messages: Sequence[Outgoing], now: float) -> list[Numbers]:
    """Insert outbox rows, numbered per key; return position and sequence of each.

    The counter of each key is locked from here to the commit, so that numbers and positions of a key are in order of commits. Keys are
    locked in one order, so that two transactions never wait for each other here: this is the last that a transaction does.
    """
    if not messages:
        return []
    name, arguments = adding(messages, now)
    rows = await connection.fetch(QUERIES[name], *arguments)
    return [(row[0], row[1]) for row in rows]


def adding(messages: Sequence[Outgoing], now: float) -> tuple[str, list[object]]:
    """Return the query that inserts outbox rows, and its parameters: those of the one, or the counter of each key and then all rows."""
    if len(messages) == 1:
        m = messages[0]
        return "outbox_add_one", [FORMAT, now, m.topic, m.name, m.id, m.key, m.lane, m.headers, m.data]
    behind: list[int] = []
    counts: dict[tuple[str, str], int] = {}
    for message in reversed(messages):
        key = (message.topic, message.key)
        count = counts.get(key, 0)
        behind.append(count)
        counts[key] = count + 1
    behind.reverse()
    keys = sorted(counts)
    return "outbox_add", [
        [topic for topic, _ in keys],
        [key for _, key in keys],
        [counts[key] for key in keys],
        FORMAT,
        now,
        [m.lane for m in messages],
        [m.topic for m in messages],
        [m.name for m in messages],
        [m.id for m in messages],
        [m.key for m in messages],
        behind,
        [m.headers for m in messages],
        [m.data for m in messages],
    ]


async def ended(connection: Connection, runtime: Runtime) -> None:
    """Commit. Raises `Undone` when the server rolled back instead, as it does after a failure that nobody noticed."""
    runtime.reached("store.commit.before")
    status = await connection.execute("commit")
    if status != "COMMIT":
        raise Undone
    runtime.reached("store.commit.after")


def _columns(rows: Sequence[tuple[object, ...]], width: int) -> list[list[object]]:
    """Turn rows into columns."""
    return [[row[index] for row in rows] for index in range(width)]


def place(messages: Sequence[Outgoing], numbers: Sequence[Numbers]) -> None:
    """Tell messages their place, once it is committed."""
    for message, (position, sequence) in zip(messages, numbers, strict=True):
        message.position = position
        message.sequence = sequence
