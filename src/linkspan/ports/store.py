"""What the core asks of a store: the user's tables beside outbox, inbox, held letters and lanes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from linkspan.errors import Error
    from linkspan.ports.broker import Outgoing
    from linkspan.ports.durability import Durability

__all__ = ["OUTBOX", "Letter", "LetterState", "Outcome", "Scheduled", "Session", "Store", "Tenure", "Unit", "Value"]

OUTBOX = "(outbox)"
"""The name under which the relays of a shared store share its lanes; no service is called so."""

Value: TypeAlias = int | float | str | bytes | None
"""What an SQL parameter or column may hold."""


class Outcome(enum.Enum):
    """How a unit ended."""

    COMMITTED = "committed"
    DUPLICATE = "duplicate"
    FAILED = "failed"
    GAP = "gap"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class Tenure:
    """What an instance of a service has for now: `lanes` to the epoch of each, its fair `share` of all lanes, how many `members` there are.

    The epoch of a lane grows whenever another instance takes it. `orphaned` are those just taken whose owner fell silent: what it
    was doing may be what killed it.
    """

    lanes: Mapping[int, int]
    share: int
    members: int
    orphaned: frozenset[int] = frozenset()


class Unit(msgspec.Struct, eq=False):
    """Recorded work that becomes true together: inbox claim first, then statements, then outgoing messages.

    `inbox` is `(source, id)` of the message being handled: if the store has it already nothing is written and the outcome is
    DUPLICATE. `mark` is `(service<source, topic, key, sequence)` of that message, None where it has no sequence or comes from a
    letter: the store moves its mark of the first three up to it. At or below the mark: DUPLICATE. More than one above it: GAP,
    nothing is written. A key without a mark takes any sequence. With `skip_gap` a gap is taken as it is, and the mark moves up.
    `fence` is `(service, lane, epoch)`: where the store has another epoch for the lane by now, nothing is written and the outcome
    is MOVED. With an interactive session mark and fence are checked by its commit, which raises `Error(ABORTED)` for them, `outcome`
    being set and nothing written. Stores that are not shared keep no marks and have no fences.

    `settled(unit)` is called on the loop after the commit (or failure), units in commit order; by then `outcome` and `error` are
    set and each of `messages` has its `position` and `sequence`. A failed group is replayed unit by unit, so one unit's error
    never fails another. `due` is the earliest moment of the messages that it schedules, 0 where it schedules none.
    """

    settled: Callable[[Unit], None]
    inbox: tuple[str, str] | None = None
    statements: list[tuple[str, Sequence[Value]]] = []  # msgspec copies it for each unit, faster than any factory
    messages: list[Outgoing] = []
    outcome: Outcome | None = None
    error: Error | None = None
    tag: Any = None
    mark: tuple[str, str, str, int] | None = None
    fence: tuple[str, int, int] | None = None
    skip_gap: bool = False
    due: float = 0.0


class Scheduled(msgspec.Struct, eq=False, gc=False):
    """A message that leaves at `due` (seconds since 1970); `source` is the one that it has on the wire, `position` its row."""

    message: Outgoing
    due: float
    source: str
    position: int = 0


class LetterState(enum.Enum):
    """Where a held message stands.

    `PARKED` waits for its time, `WAITING` for an earlier one of its key, `DEAD` for a person, `REDRIVE` was asked for.
    """

    PARKED = "parked"
    WAITING = "waiting"
    DEAD = "dead"
    REDRIVE = "redrive"


@dataclass(slots=True)
class Letter:
    """A message that a service holds: parked, waiting behind a parked one, or dead. One table, in order per key.

    `position` is its row (0 before it is stored); `due`, `first_failed`, `last_failed`, `received` are seconds since 1970 UTC.
    `headers` and `data` are byte-identical to what was delivered. `error` never holds payload. `lane` is where its key belongs:
    the lane that it was delivered in.
    """

    topic: str
    key: str
    source: str
    id: str
    type: str
    headers: bytes
    data: bytes
    state: LetterState
    attempts: int = 0
    due: float = 0.0
    code: str = ""
    error: str = ""
    fingerprint: str = ""
    received: float = 0.0
    first_failed: float = 0.0
    last_failed: float = 0.0
    redrives: int = 0
    position: int = 0
    lane: int = 0


class Session(Protocol):
    """An interactive transaction: exclusive on the writer from `Store.begin` until `commit` or `rollback`.

    A store may let sessions that follow each other share one commit. Then nobody is told of an end, `rollback` included, before
    everything that its session could see is on disk.
    """

    async def execute(self, sql: str, args: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Run one statement now and return its rows. Raises `Error`; the transaction stays open and usable for `rollback` only."""
        ...

    async def commit(self) -> None:
        """Write the unit's remaining statements and messages, commit, then settle the unit. Raises `Error`, then nothing was written."""
        ...

    async def rollback(self) -> None:
        """Undo everything, the inbox claim included. Idempotent; does not settle the unit.

        Raises `Error(UNAVAILABLE)` when it is undone, but what the session saw of those before it did not come true: what its
        caller concluded from that does not hold, so it is to be tried again.
        """
        ...


class Store(Protocol):
    """A service's database: the user's tables beside outbox, inbox and held letters, so that they commit together."""

    name: str

    @property
    def shared(self) -> bool:
        """Tell whether several processes may have it open: then lanes say who does what, and outbox rows may be another's."""
        ...

    @property
    def crashed(self) -> bool:
        """Tell, once open, whether the last owner ended without `aclose`: what it was doing may be what killed it."""
        ...

    async def open(self) -> None:
        """Open, migrate own tables, take the lock that keeps a second process out (`SetupError`: use PostgreSQL)."""
        ...

    async def aclose(self) -> None:
        """Commit what was submitted, then close. Idempotent."""
        ...

    async def migrate(self, scripts: Sequence[tuple[str, str]]) -> None:
        """Apply the user's `(name, sql)` scripts that were not applied yet, in order, each in one transaction.

        Raises `SetupError` when an applied script has changed or is gone.
        """
        ...

    def submit(self, unit: Unit) -> None:
        """Queue recorded work for the next group commit. Never blocks; order of submission is order of commit."""
        ...

    async def begin(self, unit: Unit, sql: str, args: Sequence[Value] = ()) -> tuple[Session, list[tuple[Any, ...]]] | None:
        """Open a transaction at the writer's turn: claim the inbox id, run the statements so far (then cleared), then `sql`.

        Returns None, with nothing open, when the inbox id is a duplicate. Raises `Error` when any of it fails;
        then nothing is open either, and the unit keeps its statements.
        """
        ...

    async def read(self, sql: str, args: Sequence[Value] = ()) -> list[tuple[Any, ...]]:
        """Run one read-only statement on a committed snapshot, beside the writer. A write raises `Error(INVALID_ARGUMENT)`."""
        ...

    # lanes
    async def hold_lanes(self, service: str, instance: str, *, keep: Collection[int] | None, lease: float) -> Tenure:
        """Say that an instance lives for `lease` more seconds (the store's clock), and settle which lanes are its own.

        Of those it has it gives back what is not in `keep` (None: keeps all); then it takes free and expired ones up to its fair
        share, which is the number of lanes divided by the living members; what is left over goes, one each, to the first members in
        the order of their names, so that no two shares differ by more than one. Taking a lane ends what an earlier owner had
        under way: a commit with its fence is either done before, or ends as MOVED.
        """
        ...

    async def leave_lanes(self, service: str, instance: str) -> None:
        """Give back all lanes and be no member any more. Idempotent."""
        ...

    # outbox
    def on_wake(self, wake: Callable[[], None]) -> None:
        """Call `wake` on the loop when another process may have written outbox rows. A store that is not shared never does."""
        ...

    async def unsent(self, after: int, limit: int, lanes: Collection[int] | None = None) -> list[Outgoing]:
        """Return outbox rows with a position above `after`, of these lanes (None: all), in position order.

        Per key that is the order of commits, and no row of a key is missing below one that is returned.
        """
        ...

    def sent(self, messages: Sequence[Outgoing]) -> None:
        """Delete outbox rows that the broker has stored; joins a later group commit, a crash before it sends them again."""
        ...

    def deleting(self, position: int) -> bool:
        """Tell whether `sent` was called for this row and its deletion has not been committed yet."""
        ...

    async def depth(self) -> tuple[int, float]:
        """Return the number of outbox rows and the age in seconds of the oldest (0.0 when empty)."""
        ...

    # scheduled messages; `add_scheduled` adds to a unit, `cancelling` and `taking` are statements for a session
    def add_scheduled(self, unit: Unit, message: Outgoing, due: float, source: str) -> None:
        """Keep a message until it is due, when the unit commits. The same (source, id) again changes nothing: the first stands."""
        ...

    def cancelling(self, source: str, id: str) -> tuple[str, Sequence[Value]]:  # noqa: A002 - the CloudEvents word
        """Return the statement that forgets a scheduled message; it returns a row where there was one."""
        ...

    def taking(self, now: float, limit: int) -> tuple[str, Sequence[Value]]:
        """Return the statement that takes due messages out of the table, the earliest `limit`; `taken` reads its rows.

        No two transactions take at the same time: a later one waits for the earlier one's end, so that order stands.
        """
        ...

    def taken(self, rows: Sequence[tuple[Any, ...]]) -> list[Scheduled]:
        """Read what `taking` returned, by due time and, among equal ones, in the order of commits."""
        ...

    async def next_due(self) -> float | None:
        """Return the earliest due time, None where nothing is scheduled."""
        ...

    async def scheduled(self, source: str = "", *, after: tuple[float, int] = (0.0, 0), limit: int = 100) -> list[Scheduled]:
        """Return what is scheduled, of one source or of all, behind a `(due, position)`, earliest first."""
        ...

    async def cancel_scheduled(self, position: int, source: str, *, who: str, why: str, at: float) -> bool:
        """Cancel a message by its row, audited in the same transaction; tell whether it was there. Works beside a running service."""
        ...

    # held letters; the `*_letter` methods add to a unit, so that they commit with its effect
    def add_letter(self, unit: Unit, letter: Letter) -> None:
        """Add a letter behind those of its key. Adding the same (source, id) again changes nothing."""
        ...

    def update_letter(self, unit: Unit, letter: Letter) -> None:
        """Store a letter's state, attempts, due time, error and redrives, by position."""
        ...

    def expire_letter(self, unit: Unit, position: int, *, who: str, at: float) -> None:
        """Remove a letter whose message is past its expiry, audited in the same unit."""
        ...

    def remove_letter(self, unit: Unit, position: int) -> None:
        """Remove a letter: its effect commits in the same unit, or its discard was audited."""
        ...

    async def held_keys(self, lanes: Collection[int] | None = None) -> set[tuple[str, str]]:
        """Return the `(topic, key)` pairs that have letters, of these lanes (None: all)."""
        ...

    async def heads(self, now: float, limit: int, lanes: Collection[int] | None = None) -> list[Letter]:
        """Return the first letter of each held key of these lanes (None: all) that may run.

        That is one that is REDRIVE or WAITING, or PARKED and due at `now`.
        """
        ...

    async def due_letters(self, service: str, now: float, limit: int, lanes: Collection[int] | None = None) -> list[tuple[str, str, int]]:
        """Return `(topic, key, position)` of a service's letters that are REDRIVE, or PARKED and due at `now`, the first of their keys.

        Of these lanes (None: all). Costs as much as it finds, however many letters there are.
        """
        ...

    async def next_letter(self, topic: str, key: str) -> Letter | None:
        """Return the first letter of a key."""
        ...

    async def letters(self, *, states: Sequence[LetterState] = (), after: int = 0, limit: int = 100) -> list[Letter]:
        """Return letters above a position, in position order, all states by default."""
        ...

    async def letter(self, position: int) -> Letter | None:
        """Return one letter."""
        ...

    async def redrive(self, positions: Sequence[int], *, who: str, why: str, at: float) -> int:
        """Mark DEAD letters to be tried again and write the audit row; return how many changed. Works beside a running service."""
        ...

    async def discard(self, position: int, *, who: str, why: str, at: float) -> bool:
        """End a DEAD letter for good, audited in the same transaction; its key's next letter moves up.

        Its (source, id) is claimed in the inbox too, so that a broker that forgot the ack cannot bring it back.
        """
        ...

    async def apply(self, statements: Sequence[tuple[str, Sequence[Value]]]) -> list[int]:
        """Run statements on Linkspan's own tables in one transaction, also beside the running service; return the rows each changed."""
        ...

    async def forget(self, before: float) -> int:
        """Remove inbox ids older than `before`; return how many. Bounded work per call."""
        ...

    async def attest(self) -> Durability:
        """Read the settings in force and say what a commit is worth."""
        ...
