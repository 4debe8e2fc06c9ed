"""What the core asks of the world: time, chance and names; a broker; a store. Protocols and plain values only.

Adapters live in `linkspan.brokers` and `linkspan.stores`, import nothing but this module and the nouns,
and prove themselves with the public suites in `linkspan.testing`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

if TYPE_CHECKING:
    import asyncio
    import random
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from linkspan.errors import Error

__all__ = [
    "Broker",
    "Clock",
    "Delivery",
    "Drift",
    "Durability",
    "Ids",
    "Letter",
    "LetterState",
    "Outcome",
    "Outgoing",
    "Runtime",
    "Seen",
    "Session",
    "Store",
    "Subscription",
    "Tap",
    "Timer",
    "Unit",
    "Value",
]

Value: TypeAlias = int | float | str | bytes | None
"""What an SQL parameter or column may hold."""


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Forget the call; harmless when it has run."""
        ...


class Clock(Protocol):
    """Time, so that tests can own it."""

    def now(self) -> float:
        """Return seconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back; deadlines inside a process are moments on it."""
        ...

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` on the running loop in `delay` seconds."""
        ...

    async def sleep(self, delay: float) -> None:
        """Wait `delay` seconds."""
        ...


class Ids(Protocol):
    """Names for messages, requests and spans."""

    def new(self) -> str:
        """Return a new id: UUIDv7 text (RFC 9562), so ids sort by time."""
        ...

    def span(self) -> str:
        """Return 16 hex digits for a new trace span, never all zero (W3C Trace Context)."""
        ...

    def trace(self) -> str:
        """Return 32 hex digits for a new trace, never all zero."""
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything nondeterministic, injected: the same run twice in tests, whole systems in simulated time.

    `reached` is called with a name such as `relay.publish.before` around every commit, publish and ack;
    it does nothing in production, and ends the process at a chosen point in crash tests.
    """

    clock: Clock
    random: random.Random
    ids: Ids
    reached: Callable[[str], None]


# --- broker ---------------------------------------------------------------------------------------


class Outgoing(msgspec.Struct, eq=False, gc=False):
    """A message on its way to a broker's topic.

    `topic` is `<package>.events` or `<package>.commands`; `name` is the type without its package (`OrderPlaced`,
    `Payments.Charge`); `lane` is 0..63, fixed by the key. `headers` is the canonical block: ASCII lines `name: value` ended by CR LF,
    values percent-encoded, in the order that `envelope.render` gives; it holds neither the sequence nor a broker's own headers.
    `sequence` counts per (source, topic, key) from 1, 0 where there is none; `position` is the outbox row, 0 where there is none.
    """

    topic: str
    name: str
    lane: int
    id: str
    key: str
    headers: bytes
    data: bytes
    sequence: int = 0
    position: int = 0


class Delivery(Protocol):
    """A message handed over by a broker; settled by exactly one of `ack` and `nack`.

    `headers` is the same canonical block as in `Outgoing` (foreign publishers: whatever headers they sent, any order),
    without the status line, broker headers allowed in it. All methods are synchronous, cheap, safe to repeat, harmless after close.
    """

    topic: str
    headers: bytes
    data: bytes

    @property
    def attempt(self) -> int:
        """How often the broker has handed this message to this group, 1 at first."""
        ...

    def ack(self) -> None:
        """Settle: the group is done with it. May be forgotten by a broker that dies (the message comes again)."""
        ...

    def nack(self, delay: float = 0.0) -> None:
        """Give it back, to be delivered again after `delay` seconds. Breaks order per key; the core holds keys instead."""
        ...

    def beat(self) -> None:
        """Say that the work goes on: the broker's redelivery clock starts anew."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """A message that a tap saw: where it stands in its topic, when the broker stored it (seconds since 1970), how many are to come."""

    topic: str
    sequence: int
    stored: float
    headers: bytes
    data: bytes
    pending: int


class Tap(Protocol):
    """Watches topics from beside, disturbing no group."""

    async def add(self, topic: str, *, since: float | None = None) -> int:
        """Watch a topic from a moment on (0 for all that is kept) or from now; return how many are to come first. Raises `Error`."""
        ...

    async def aclose(self) -> None:
        """Stop watching. Idempotent."""
        ...


class Subscription(Protocol):
    """A group's open delivery from one topic."""

    async def stop(self) -> None:
        """Take no more; deliveries in hand can still be settled. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Drift:
    """A declared stream or consumer that exists with other settings: reported, never overwritten."""

    what: str
    setting: str
    declared: str
    found: str


@dataclass(frozen=True, slots=True)
class Durability:
    """What an engine attests about itself at start: `level` is `power` (survives power cuts), `process` (kills) or `none`."""

    engine: str
    level: str
    reasons: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict[str, str])


class Broker(Protocol):
    """A log of topics with durable groups. One module, passes `linkspan.testing.BrokerContract`."""

    @property
    def connected(self) -> bool:
        """Tell whether the server can be reached, as far as is known: False while a lost connection has not come back, or closed."""
        ...

    async def open(self) -> None:
        """Connect. Raises `Error(UNAVAILABLE)` when the server does not answer, `SetupError` on wrong credentials or an unfit server."""
        ...

    async def aclose(self) -> None:
        """Flush acks, close, fail what is in flight with `UNAVAILABLE`. Idempotent, also while other calls are blocked."""
        ...

    async def declare(self, topics: Iterable[str], groups: Iterable[tuple[str, str]]) -> list[Drift]:
        """Create missing topics and `(topic, group)` consumers; return what exists with other settings. Idempotent."""
        ...

    def publish(self, message: Outgoing) -> asyncio.Future[None]:
        """Send one message; the future ends when the broker has stored it (a duplicate id within its window counts as stored).

        Many may be in flight; messages published one after the other are stored in that order unless one fails.
        The future raises `Error`: UNAVAILABLE (not known whether it was stored: send it again with the same id),
        INVALID_ARGUMENT (too large for the broker), NOT_FOUND (no such topic). Cancelling the future does not unsend.
        """
        ...

    async def publish_batch(self, messages: Sequence[Outgoing]) -> None:
        """Store 2 to 1000 messages of one topic, all or none, in order, with one sync.

        Raises `Error(ABORTED)` when it may or may not have been stored, or holds an id that the broker has already:
        send them again singly with the same ids.
        """
        ...

    async def subscribe(self, topic: str, group: str, receive: Callable[[Delivery], None], *, prefetch: int) -> Subscription:
        """Deliver the topic to `receive`, in stream order, with at most `prefetch` unsettled.

        Starts after the group's last settled message: at each start and after each reconnect everything unsettled comes again,
        in stream order, before anything newer (messages settled out of order above the oldest unsettled one may come again as well).
        `receive` is called on the loop, must not block or raise.
        """
        ...

    async def attest(self) -> Durability:
        """Read the server's settings and say what an acknowledgement is worth."""
        ...


# --- store ----------------------------------------------------------------------------------------


class Outcome(enum.Enum):
    """How a unit ended."""

    COMMITTED = "committed"
    DUPLICATE = "duplicate"
    FAILED = "failed"


class Unit(msgspec.Struct, eq=False):
    """Recorded work that becomes true together: inbox claim first, then statements, then outgoing messages.

    `inbox` is `(source, id)` of the message being handled: if the store has it already nothing is written and the outcome is
    DUPLICATE. `settled(unit)` is called on the loop after the commit (or failure), units in commit order; by then `outcome` and
    `error` are set and each of `messages` has its `position` and `sequence`. A failed group is replayed unit by unit, so one
    unit's error never fails another.
    """

    settled: Callable[[Unit], None]
    inbox: tuple[str, str] | None = None
    statements: list[tuple[str, Sequence[Value]]] = []  # msgspec copies it for each unit, faster than any factory
    messages: list[Outgoing] = []
    outcome: Outcome | None = None
    error: Error | None = None
    tag: Any = None


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
    `headers` and `data` are byte-identical to what was delivered. `error` never holds payload.
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

    # outbox
    async def unsent(self, after: int, limit: int) -> list[Outgoing]:
        """Return outbox rows with a position above `after`, in position order (= commit order)."""
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

    # held letters; the `*_letter` methods add to a unit, so that they commit with its effect
    def add_letter(self, unit: Unit, letter: Letter) -> None:
        """Add a letter behind those of its key. Adding the same (source, id) again changes nothing."""
        ...

    def update_letter(self, unit: Unit, letter: Letter) -> None:
        """Store a letter's state, attempts, due time, error and redrives, by position."""
        ...

    def remove_letter(self, unit: Unit, position: int) -> None:
        """Remove a letter: its effect commits in the same unit, or its discard was audited."""
        ...

    async def held_keys(self) -> set[tuple[str, str]]:
        """Return the `(topic, key)` pairs that have letters."""
        ...

    async def heads(self, now: float, limit: int) -> list[Letter]:
        """Return the first letter of each held key that may run: REDRIVE or WAITING at the head, or PARKED and due at `now`."""
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

    async def forget(self, before: float) -> int:
        """Remove inbox ids older than `before`; return how many. Bounded work per call."""
        ...

    async def attest(self) -> Durability:
        """Read the settings in force and say what a commit is worth."""
        ...
