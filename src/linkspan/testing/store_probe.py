"""What the store scenarios share: units that report, letters and messages with every field set, and the adapter's hook."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from linkspan.errors import Code, Error
from linkspan.ports import Letter, LetterState, Outcome, Outgoing, Unit
from linkspan.runtime import SystemClock, system

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Sequence
    from pathlib import Path

    from linkspan.ports import Runtime, Session, Store, Value

__all__ = [
    "INSERT",
    "NOTHING",
    "SCRIPTS",
    "TOPIC",
    "SetClock",
    "Settled",
    "StoreScenarios",
    "effects",
    "expect",
    "letter",
    "message",
    "opened",
    "refused",
    "row",
]

SCRIPTS = [("001_effect", "create table effect (id text primary key, amount integer not null);\ncreate table note (line text);")]
INSERT = "insert into effect (id, amount) values (?, ?)"
NOTHING = "select 1 where 1 = 0"
"""A first statement for a session that is about something else."""
TOPIC = "shop.events"


class SetClock(SystemClock):
    """A clock whose time of day is set by hand."""

    def __init__(self, now: float) -> None:
        self.time = now

    def now(self) -> float:
        """Return the time that was set."""
        return self.time


def expect(actual: object, wanted: object, promise: str) -> None:
    """Compare; the message says which promise is broken."""
    if actual != wanted:
        raise AssertionError(f"{promise}: expected {wanted!r}, found {actual!r}")


async def refused(work: Coroutine[Any, Any, Any], code: Code, promise: str) -> Error:
    """Await work that must raise an `Error` of this code, and return it."""
    try:
        found = await work
    except Error as error:
        expect(error.code, code, promise)
        return error
    raise AssertionError(f"{promise}: expected {code}, found the result {found!r}")


def message(id: str, key: str = "k", topic: str = TOPIC) -> Outgoing:  # noqa: A002 - the CloudEvents word
    """Return an outgoing message with every byte in its payload."""
    return Outgoing(topic, "OrderPlaced", 7, id, key, f"ce-id: {id}\r\n".encode(), bytes(range(256)))


def row(of: Outgoing) -> tuple[Any, ...]:
    """Return everything that an outbox row holds."""
    return of.topic, of.name, of.lane, of.id, of.key, of.headers, of.data, of.sequence, of.position


def letter(id: str, key: str = "k", state: LetterState = LetterState.DEAD, due: float = 0.0) -> Letter:  # noqa: A002 - the CloudEvents word
    """Return a letter with every field set."""
    found = Letter(TOPIC, key, "orders", id, "shop.OrderPlaced", b"a: b\r\n", b"\x00\xff", state, attempts=3, due=due, redrives=1)
    return replace(found, code="internal", error="It broke.", fingerprint="f00d", received=1.5, first_failed=2.5, last_failed=3.5)


class Settled:
    """Makes units and remembers, in order, how they ended."""

    def __init__(self) -> None:
        self.order: list[Unit] = []
        self._futures: dict[Unit, asyncio.Future[Unit]] = {}

    def unit(
        self,
        inbox: tuple[str, str] | None = None,
        statements: Sequence[tuple[str, Sequence[Value]]] = (),
        messages: Sequence[Outgoing] = (),
    ) -> Unit:
        """Return a unit that reports here."""
        unit = Unit(self._end, inbox, list(statements), list(messages))
        self._futures[unit] = asyncio.get_running_loop().create_future()
        return unit

    def _end(self, unit: Unit) -> None:
        self.order.append(unit)
        self._futures[unit].set_result(unit)

    async def submit(self, store: Store, *units: Unit) -> list[Outcome | None]:
        """Submit all in one turn of the loop and wait for all; return how they ended."""
        for unit in units:
            store.submit(unit)
        await asyncio.gather(*(self._futures[unit] for unit in units))
        return [unit.outcome for unit in units]

    async def write(self, store: Store, id: str, amount: int = 1) -> None:  # noqa: A002 - the column's name
        """Commit one effect row."""
        expect(await self.submit(store, self.unit(statements=[(INSERT, (id, amount))])), [Outcome.COMMITTED], "a unit commits")


async def opened(session: Coroutine[Any, Any, tuple[Session, list[tuple[Any, ...]]] | None]) -> Session:
    """Await `begin` where no duplicate is expected."""
    found = await session
    if found is None:
        raise AssertionError("begin found a duplicate where there is none")
    return found[0]


async def effects(store: Store) -> list[str]:
    """Return the ids of the effect rows."""
    return [row[0] for row in await store.read("select id from effect order by id")]


class StoreScenarios:
    """The hook that an adapter fills, and what depends on a database's own SQL."""

    TRIGGER = """
        create trigger t after insert on effect begin
            insert into note values (new.id); insert into note values ('t');
        end;
    """
    """Notes the id of each new effect, then 't'. Holds semicolons that end no statement."""

    def make_store(self, place: Path, runtime: Runtime, *, exclusive: bool = True) -> Store:
        """Return a store that is not open yet; the same place has the same content. `exclusive=False` stands beside a running one."""
        raise NotImplementedError

    @asynccontextmanager
    async def store(
        self, place: Path, runtime: Runtime | None = None, scripts: Sequence[tuple[str, str]] = SCRIPTS
    ) -> AsyncGenerator[Store]:
        """Open a store with its user tables, close it at the end."""
        store = self.make_store(place, runtime or system())
        await store.open()
        try:
            await store.migrate(scripts)
            yield store
        finally:
            await store.aclose()
