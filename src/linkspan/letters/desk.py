"""The desk: what a person asks of the letters that a service holds, and what is done to them, each deed with its audit row.

Everything here is plain SQL over `Store.read` and `Store.apply`, the same on every store, and works beside the running
service: it changes dead letters only, which nobody else touches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

from linkspan.envelope import claim
from linkspan.ports import Letter, LetterState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linkspan.ports import Store, Value

    Statement = tuple[str, Sequence[Value]]

__all__ = [
    "AuditEntry",
    "Choice",
    "Depths",
    "Desk",
    "FailedRound",
    "LetterGroup",
    "attempted",
    "audited",
    "forgotten",
    "holder",
    "stack_of",
]

ROUNDS = 20
"""Failed rounds that are kept of a letter, the newest."""
AT_ONCE = 200
"""Letters changed per transaction."""

_COLUMNS = """topic, key, source, id, type, state, attempts, due, code, error, fingerprint,
  received, first_failed, last_failed, redrives, position"""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters of a service are meant; what is left empty chooses nothing out. `last` is the highest position, 0 for any."""

    service: str = ""
    states: tuple[LetterState, ...] = (LetterState.DEAD,)
    group: str = ""
    key: str = ""
    type: str = ""
    code: str = ""
    last: int = 0

    def where(self, letter: str = "") -> tuple[str, list[Value]]:
        """Return the condition and its values; `letter` is the table's name with its dot."""
        parts = ["1 = 1"]
        args: list[Value] = []
        if self.service:  # services that share a store are kept apart by the topic's name there
            parts.append(f"substr({letter}topic, 1, {len(self.service) + 1}) = ?")
            args.append(f"{self.service}:")
        if self.states:
            parts.append(f"{letter}state in ({', '.join('?' * len(self.states))})")
            args += [state.value for state in self.states]
        for column, value in (("fingerprint", self.group), ("key", self.key), ("type", self.type), ("code", self.code)):
            if value:
                parts.append(f"{letter}{column} = ?")
                args.append(value)
        if self.last:
            parts.append(f"{letter}position <= ?")
            args.append(self.last)
        return " and ".join(parts), args


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Letters with the same cause. Times are seconds since 1970; `oldest` is the position of the first, `error` what it said.

    `keys` are held by them, and `behind` later messages wait for them.
    """

    service: str
    group: str
    type: str
    code: str
    count: int
    keys: int
    behind: int
    first: float
    last: float
    oldest: int
    error: str


@dataclass(frozen=True, slots=True)
class FailedRound:
    """How a letter failed once: after how many attempts in all, when, why and where (frames, nearest first)."""

    attempts: int
    at: float
    code: str
    error: str
    stack: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to which letter, when and why. `letter` is 0 where a redrive of many began or ended: `id` is its id then."""

    at: float
    action: str
    who: str
    why: str
    letter: int
    topic: str
    key: str
    source: str
    id: str
    type: str
    group: str


@dataclass(frozen=True, slots=True)
class Depths:
    """How much a service holds: letters by state, keys held, the fullest key with its letters, and when the oldest came."""

    states: dict[str, int]
    keys: int
    fullest: tuple[str, int]
    oldest: float

    @property
    def letters(self) -> int:
        """Return how many letters there are in all."""
        return sum(self.states.values())


def holder(letter: Letter) -> str:
    """Return the service that holds a letter."""
    return letter.topic.partition(":")[0]


_OURS = str(Path(__file__).parent)


def stack_of(error: BaseException, most: int = 8) -> str:
    """Return where an error came from, nearest first: lines `file function:number` of the user's own code, without text or payload."""
    tracebacks = (each.__traceback__ for each in (error.__cause__, error) if each is not None)
    found = [frame for traceback in tracebacks for frame in reversed(extract_tb(traceback)) if not frame.filename.startswith(_OURS)]
    return "\n".join(f"{Path(frame.filename).name} {frame.name}:{frame.lineno}" for frame in found[:most])


# --- statements that join a unit --------------------------------------------------------------------


def attempted(letter: Letter, stack: str) -> list[Statement]:
    """Return the statements that note a failed round of a letter, and forget the oldest."""
    name = (letter.topic, letter.source, letter.id)
    row = (*name, letter.attempts, letter.last_failed, letter.code, letter.error, stack[:1000])
    sql = (
        "insert into linkspan_attempt (topic, source, id, attempts, at, code, error, stack) values (?, ?, ?, ?, ?, ?, ?, ?) "
        "on conflict (topic, source, id, attempts) do nothing"
    )
    found: list[Statement] = [(sql, row)]
    if letter.attempts > ROUNDS:
        kept = (
            "select attempts from linkspan_attempt where topic = ? and source = ? and id = ? order by attempts desc limit 1 "
            f"offset {ROUNDS - 1}"
        )
        sql = f"delete from linkspan_attempt where topic = ? and source = ? and id = ? and attempts < ({kept})"
        found.append((sql, (*name, *name)))
    return found


def forgotten(letter: Letter) -> Statement:
    """Return the statement that removes a letter's failed rounds, for when it goes itself."""
    return "delete from linkspan_attempt where topic = ? and source = ? and id = ?", (letter.topic, letter.source, letter.id)


def audited(at: float, action: str, who: str, why: str, position: int, state: LetterState = LetterState.DEAD) -> Statement:
    """Return the statement that writes the audit row of a deed to a letter in a state."""
    sql = (
        "insert into linkspan_audit (at, action, who, why, letter, topic, key, source, id, type, fingerprint) "
        "select ?, ?, ?, ?, position, topic, key, source, id, type, fingerprint from linkspan_letter where position = ? and state = ?"
    )
    return sql, (at, action, who, why, position, state.value)


def _claims(letter: Letter) -> list[tuple[str, str]]:
    """Return the inbox ids that keep a message away for good."""
    service, colon, _ = letter.topic.partition(":")
    return [(letter.source, letter.id), claim(service, letter.source, letter.id)] if colon else [(letter.source, letter.id)]


def kept_away(letter: Letter, at: float) -> list[Statement]:
    """Return the statements that claim a dead letter's id in the inbox, so that a broker that forgot the ack cannot bring it back."""
    sql = (
        "insert into linkspan_inbox (source, id, at) select ?, ?, ? "
        "where exists (select 1 from linkspan_letter where position = ? and state = ? and id = ?) on conflict (source, id) do nothing"
    )
    return [(sql, (source, id_, at, letter.position, LetterState.DEAD.value, letter.id)) for source, id_ in _claims(letter)]


class Desk:
    """Looks at one store's letters and deals with dead ones."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # --- looking

    async def groups(self, choice: Choice, limit: int = 100) -> list[LetterGroup]:
        """Return letters by cause, the largest group first."""
        where, args = choice.where()
        rows = await self._store.read(
            "select fingerprint, type, code, count(*), count(distinct key), min(first_failed), max(last_failed), min(position) "
            f"from linkspan_letter where {where} group by fingerprint, type, code order by count(*) desc, min(position) limit ?",
            (*args, limit),
        )
        return [await self._group(row) for row in rows]

    async def _group(self, row: tuple[Any, ...]) -> LetterGroup:
        fingerprint, type_, code, count, keys, first, last, oldest = row
        ((topic, error),) = await self._store.read("select topic, error from linkspan_letter where position = ?", (oldest,)) or [("", "")]
        service = topic.partition(":")[0]
        return LetterGroup(service, fingerprint, type_, code, count, keys, await self._behind(fingerprint), first, last, oldest, error)

    async def _behind(self, fingerprint: str) -> int:
        """Count what waits for a group's letters."""
        sql = (
            "select count(*) from linkspan_letter d join linkspan_letter w on w.topic = d.topic and w.key = d.key "
            "and w.position > d.position where d.fingerprint = ? and d.state in ('dead', 'parked') and w.state = 'waiting'"
        )
        rows = await self._store.read(sql, (fingerprint,)) if fingerprint else []
        return int(rows[0][0]) if rows else 0

    async def letters(self, choice: Choice, after: int = 0, limit: int = 100) -> list[Letter]:
        """Return letters in their order, without headers and content."""
        where, args = choice.where()
        sql = f"select {_COLUMNS} from linkspan_letter where position > ? and {where} order by position limit ?"
        return [_lean(row) for row in await self._store.read(sql, (after, *args, limit))]

    async def count(self, choice: Choice) -> int:
        """Count letters."""
        where, args = choice.where()
        ((count,),) = await self._store.read(f"select count(*) from linkspan_letter where {where}", args)
        return int(count)

    async def counts(self, service: str) -> dict[tuple[str, str], int]:
        """Return how many letters there are by topic, as the service calls it, and key."""
        where, args = Choice(service, ()).where()
        rows = await self._store.read(f"select topic, key, count(*) from linkspan_letter where {where} group by topic, key", args)
        return {(topic.partition(":")[2], key): count for topic, key, count in rows}

    async def behind(self, letter: Letter, limit: int = 10) -> tuple[int, list[Letter]]:
        """Return how many letters wait behind one of the same key, and the first of them."""
        args = (letter.topic, letter.key, letter.position)
        where = "topic = ? and key = ? and position > ?"
        ((count,),) = await self._store.read(f"select count(*) from linkspan_letter where {where}", args)
        rows = await self._store.read(
            f"select {_COLUMNS} from linkspan_letter where {where} order by position limit ?",
            (*args, limit),
        )
        return count, [_lean(row) for row in rows]

    async def rounds(self, letter: Letter) -> list[FailedRound]:
        """Return how a letter failed, oldest first."""
        sql = (
            "select attempts, at, code, error, stack from linkspan_attempt where topic = ? and source = ? and id = ? "
            f"order by attempts limit {2 * ROUNDS}"
        )
        return [FailedRound(*row) for row in await self._store.read(sql, (letter.topic, letter.source, letter.id))]

    async def discards(self, service: str, after: int, limit: int = 1000) -> list[tuple[int, str, str]]:
        """Return `(position, topic, key)` of a service's letters that people ended, by audit rows above a position, oldest first."""
        where, args = Choice(service, ()).where()
        sql = f"select position, topic, key from linkspan_audit where position > ? and action = 'discard' and {where}"
        sql += " order by position limit ?"
        return [(position, topic, key) for position, topic, key in await self._store.read(sql, (after, *args, limit))]

    async def newest_deed(self) -> int:
        """Return the position of the newest audit row, 0 where there is none."""
        ((position,),) = await self._store.read("select max(position) from linkspan_audit")
        return int(position or 0)

    async def depths(self, service: str) -> Depths:
        """Return how much a service holds."""
        where, args = Choice(service, ()).where()
        states = await self._store.read(f"select state, count(*) from linkspan_letter where {where} group by state", args)
        ((keys, oldest),) = await self._store.read(
            "select count(*), min(received) from (select topic, key, min(received) as received "
            f"from linkspan_letter where {where} group by topic, key) as held",
            args,
        )
        fullest = await self._store.read(
            f"select key, count(*) from linkspan_letter where {where} group by topic, key order by count(*) desc limit 1",
            args,
        )
        key, count = fullest[0] if fullest else ("", 0)
        return Depths(dict(states), keys, (key, count), oldest or 0.0)

    async def audit(self, service: str = "", limit: int = 100) -> list[AuditEntry]:
        """Return what was done, newest first."""
        sql = "select at, action, who, why, letter, topic, key, source, id, type, fingerprint from linkspan_audit"
        args: list[Value] = []
        if service:
            sql += f" where substr(topic, 1, {len(service) + 1}) = ?"
            args.append(f"{service}:")
        return [AuditEntry(*row) for row in await self._store.read(f"{sql} order by position desc limit ?", (*args, limit))]

    async def origin(self, letter: Letter) -> str:
        """Return the id of the message that an edited letter corrects, empty where it came as it is."""
        sql = "select id from linkspan_original where letter = ? and resolved_by = ?"
        rows = await self._store.read(sql, (letter.position, letter.id))
        return str(rows[0][0]) if rows else ""

    # --- doing

    async def note(self, letter: Letter, action: str, *, who: str, why: str, at: float) -> None:
        """Write an audit row about a letter that stays as it is."""
        await self._store.apply([audited(at, action, who, why, letter.position, letter.state)])

    async def discard(self, letters: Sequence[Letter], *, who: str, why: str, at: float) -> int:
        """End dead letters for good, audited; the next ones of their keys move up. Return how many there were."""
        count = 0
        for start in range(0, len(letters), AT_ONCE):
            statements: list[Statement] = []
            removals: list[int] = []
            for letter in letters[start : start + AT_ONCE]:
                statements.append(audited(at, "discard", who, why, letter.position))
                statements += kept_away(letter, at)
                removals.append(len(statements))
                statements.append(("delete from linkspan_letter where position = ? and state = 'dead'", (letter.position,)))
                statements.append(_rounds_of_the_gone(letter))
            changed = await self._store.apply(statements)
            count += sum(changed[index] for index in removals)
        return count


def _rounds_of_the_gone(letter: Letter) -> Statement:
    """Return the statement that removes the failed rounds of a letter that is gone by now."""
    sql, args = forgotten(letter)
    return f"{sql} and not exists (select 1 from linkspan_letter where position = ?)", (*args, letter.position)


def _lean(row: tuple[Any, ...]) -> Letter:
    topic, key, source, id_, type_, state, *rest = row
    return Letter(topic, key, source, id_, type_, b"", b"", LetterState(state), *rest)
