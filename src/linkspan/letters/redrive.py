"""A redrive of many: what a person asks for, as the store keeps it, so that it outlives every process and can be seen and stopped."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from linkspan.letters.desk import Choice, audited

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linkspan.ports import Store, Value

    Statement = tuple[str, Sequence[Value]]

__all__ = ["ACTIVE", "Progress", "Redrive", "Redrives", "failed_again", "taken"]

ACTIVE = ("asked", "canary", "running")
"""The states of a redrive that is not over; the others are `done` and `stopped`."""


@dataclass(frozen=True, slots=True)
class Redrive:
    """Dead letters of a service that are to be tried again: those of a group or of a key, or all, up to position `last`.

    At most `rate` runs a second, `canary` of them first. A run that takes longer than `patience` seconds counts as failed as long
    as it takes. `seen` is when the running service was last at it; times are seconds since 1970, 0 for never.
    """

    id: str
    service: str
    fingerprint: str
    key: str
    last: int
    total: int
    rate: float
    canary: int
    patience: float
    who: str
    why: str
    at: float
    state: str = "asked"
    reason: str = ""
    ended: float = 0.0
    seen: float = 0.0

    @property
    def choice(self) -> Choice:
        """Return which letters are meant."""
        return Choice(self.service, group=self.fingerprint, key=self.key, last=self.last)

    @property
    def active(self) -> bool:
        """Tell whether it is not over."""
        return self.state in ACTIVE


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a redrive is: letters taken, of them still running and failed again; the rest had their effect."""

    taken: int
    running: int
    failed: int

    @property
    def handled(self) -> int:
        """Return how many are gone from the letters."""
        return self.taken - self.running - self.failed


_NAMES = [field.name for field in fields(Redrive)]
_COLUMNS = ", ".join(_NAMES)
_IS_ACTIVE = "state in ('asked', 'canary', 'running')"


def taken(redrive: Redrive, position: int, at: float) -> list[Statement]:
    """Return the statements that note, with the unit that counts its run, that a redrive takes a dead letter, and audit it."""
    return [
        (
            "insert into linkspan_redriven (letter, redrive, failed) values (?, ?, 0) on conflict (letter, redrive) do nothing",
            (position, redrive.id),
        ),
        audited(at, "redrive", redrive.who, redrive.why, position),
    ]


def failed_again(position: int) -> Statement:
    """Return the statement that notes, with the letter's new state, that its redrive failed."""
    return "update linkspan_redriven set failed = 1 where letter = ? and failed = 0", (position,)


class Redrives:
    """The redrives of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def ask(self, redrive: Redrive) -> bool:
        """Ask for a redrive; False where the service has one that is not over."""
        row = tuple(getattr(redrive, name) for name in _NAMES)
        sql = (
            f"insert into linkspan_redrive ({_COLUMNS}) select {', '.join('?' * len(row))} "
            f"where not exists (select 1 from linkspan_redrive where service = ? and {_IS_ACTIVE})"
        )
        changed = await self._store.apply(
            [(sql, (*row, redrive.service)), self._audited(redrive, "redrive", redrive.who, redrive.why, redrive.at)]
        )
        return changed[0] == 1

    def _audited(self, redrive: Redrive, action: str, who: str, why: str, at: float) -> Statement:
        sql = (
            "insert into linkspan_audit (at, action, who, why, letter, topic, key, source, id, type, fingerprint) "
            "select ?, ?, ?, ?, 0, ?, key, '', id, '', fingerprint from linkspan_redrive where id = ?"
        )
        return sql, (at, action, who, why, f"{redrive.service}:", redrive.id)

    async def active(self, service: str) -> Redrive | None:
        """Return the redrive of a service that is not over."""
        sql = f"select {_COLUMNS} from linkspan_redrive where service = ? and {_IS_ACTIVE} order by id limit 1"
        rows = await self._store.read(sql, (service,))
        return Redrive(*rows[0]) if rows else None

    async def one(self, id: str) -> Redrive | None:  # noqa: A002 - it is one
        """Return a redrive."""
        rows = await self._store.read(f"select {_COLUMNS} from linkspan_redrive where id = ?", (id,))
        return Redrive(*rows[0]) if rows else None

    async def newest(self, service: str, limit: int = 10) -> list[Redrive]:
        """Return the redrives of a service, newest first."""
        sql = f"select {_COLUMNS} from linkspan_redrive where service = ? order by id desc limit ?"
        return [Redrive(*row) for row in await self._store.read(sql, (service, limit))]

    async def progress(self, redrive: Redrive) -> Progress:
        """Count what became of the letters that a redrive took. A letter that was discarded meanwhile counts as handled."""
        sql = (
            "select r.failed, count(*), count(l.position) from linkspan_redriven r left join linkspan_letter l on l.position = r.letter "
            "where r.redrive = ? group by r.failed"
        )
        counts = {failed: (count, there) for failed, count, there in await self._store.read(sql, (redrive.id,))}
        failed, running = counts.get(1, (0, 0))[0], counts.get(0, (0, 0))[1]
        return Progress(sum(count for count, _ in counts.values()), running, failed)

    async def left(self, redrive: Redrive, after: int, limit: int) -> list[int]:
        """Return the positions of dead letters that a redrive is to take still, in their order."""
        where, args = redrive.choice.where("l.")
        sql = (
            f"select l.position from linkspan_letter l where l.position > ? and {where} and not exists "
            "(select 1 from linkspan_redriven r where r.redrive = ? and r.letter = l.position) order by l.position limit ?"
        )
        return [row[0] for row in await self._store.read(sql, (after, *args, redrive.id, limit))]

    async def note(self, redrive: Redrive, state: str, at: float) -> None:
        """Say that the running service is at it."""
        sql = f"update linkspan_redrive set state = ?, seen = ? where id = ? and {_IS_ACTIVE}"
        await self._store.apply([(sql, (state, at, redrive.id))])

    async def end(self, redrive: Redrive, state: str, *, who: str, why: str, at: float) -> bool:
        """End a redrive as `done` or `stopped`, audited; False where it is over already."""
        sql = f"update linkspan_redrive set state = ?, reason = ?, ended = ? where id = ? and {_IS_ACTIVE}"
        audit, args = self._audited(redrive, f"redrive {state}", who, why, at)
        still = (f"{audit} and {_IS_ACTIVE}", args)
        changed = await self._store.apply([still, (sql, (state, why, at, redrive.id))])
        return changed[1] == 1
