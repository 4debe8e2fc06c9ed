"""A PostgreSQL that dies, ends connections or loses answers at any step of a transaction: nothing is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import pytest

from linkspan.errors import Code, Error
from linkspan.ports import Outcome
from linkspan.runtime import system
from linkspan.stores.postgres import PostgresLimits, PostgresStore
from linkspan.testing.store_probe import INSERT, NOTHING, SCRIPTS, Settled, effects, message, opened
from tests.integration.postgres_runner import PostgresRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from linkspan.ports import Unit

POINTS = [
    "inbox.claim.before",
    "inbox.claim.after",
    "outbox.delete.before",
    "outbox.delete.after",
    "store.commit.before",
    "store.commit.after",
]


class Trap:
    """Does something the first time that a point is reached, once it is set."""

    def __init__(self) -> None:
        self.point = ""
        self.act: Callable[[], None] = lambda: None
        self.hit = 0

    def set(self, point: str, act: Callable[[], None]) -> None:
        self.point, self.act = point, act

    def __call__(self, point: str) -> None:
        if point == self.point:
            self.point = ""
            self.hit += 1
            self.act()


@pytest.fixture
def mortal() -> Generator[PostgresRunner]:
    """Run a server that the test may kill."""
    runner = PostgresRunner({"fsync": "off"})  # a kill leaves the page cache as it is
    try:
        runner.start()
        yield runner
    finally:
        runner.remove()


@pytest.fixture
def schema(request: pytest.FixtureRequest) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in request.node.name.lower())[-50:].lstrip("_0123456789")


def psql(runner: PostgresRunner, sql: str) -> None:
    """Run a statement from outside, at once."""
    command = [runner._bin / "psql", "-h", "127.0.0.1", "-p", str(runner.port), "-U", runner.user, "-qc", sql, "postgres"]
    environment = {**os.environ, "PGPASSWORD": runner.password, "LD_LIBRARY_PATH": str(runner._bin.parent / "lib")}
    subprocess.run(command, check=True, capture_output=True, env=environment)


def end_connections(runner: PostgresRunner) -> None:
    psql(runner, "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'linkspan%'")


async def trapped(url: str, trap: Trap) -> PostgresStore:
    store = PostgresStore(url, name="shop", runtime=replace(system(), reached=trap))
    await store.open()
    await store.migrate(SCRIPTS)
    return store


def work(done: Settled, number: int) -> Unit:
    return done.unit(("s", str(number)), [(INSERT, (f"r{number}", number))], [message(f"m{number}", "k")])


async def check(store: PostgresStore, wanted: int) -> None:
    """Each effect is there once, each message once, numbered without a hole."""
    assert await store.read("select count(*), count(distinct id) from effect") == [(wanted, wanted)]
    found = await store.read("select last from linkspan_sequence where key = 'k'")
    assert found == [(wanted,)]
    assert [m.sequence for m in await store.unsent(0, 99)] == list(range(2, wanted + 1))  # the first was sent


@pytest.mark.parametrize("point", POINTS)
async def test_ended_connection_costs_no_unit(postgres: PostgresRunner, schema: str, point: str) -> None:
    """The server ends the connection at each step of a group: the group is done once, and nobody hears of it."""
    trap, done = Trap(), Settled()
    store = await trapped(postgres.url(schema=schema), trap)
    first = work(done, 0)
    assert await done.submit(store, first) == [Outcome.COMMITTED]
    writer = f"select pid from pg_locks join {schema}.linkspan_process on objid = id where locktype = 'advisory' and granted"
    pid = f"select pg_terminate_backend(pid) from ({writer}) as writer"
    trap.set(point, lambda: psql(postgres, pid))
    store.sent(first.messages)
    units = [work(done, number) for number in range(1, 6)]
    assert await done.submit(store, *units) == [Outcome.COMMITTED] * 5
    await store.aclose()
    assert trap.hit == 1
    async with asyncio.timeout(30):
        store = await trapped(postgres.url(schema=schema), Trap())
        await check(store, 6)
        await store.aclose()


@pytest.mark.parametrize("point", POINTS)
async def test_killed_server_loses_and_repeats_nothing(mortal: PostgresRunner, schema: str, point: str) -> None:
    """SIGKILL to the whole server at each step of a group; it comes back while the store waits for it."""
    trap, done = Trap(), Settled()
    store = await trapped(mortal.url(schema=schema), trap)
    first = work(done, 0)
    assert await done.submit(store, first) == [Outcome.COMMITTED]

    def kill() -> None:
        mortal.kill()
        asyncio.get_running_loop().call_later(0.05, mortal.start)

    trap.set(point, kill)
    store.sent(first.messages)
    units = [work(done, number) for number in range(1, 6)]
    outcomes = await done.submit(store, *units)
    assert trap.hit == 1
    again = [work(done, number) for number, outcome in enumerate(outcomes, 1) if outcome is Outcome.FAILED]
    assert all(unit.error and unit.error.transient for unit in units if unit.outcome is Outcome.FAILED)
    assert set(await done.submit(store, *again)) <= {Outcome.COMMITTED}
    store.sent(first.messages)
    await store.aclose()
    store = await trapped(mortal.url(schema=schema), Trap())
    await check(store, 6)
    await store.aclose()


class Wire:
    """A proxy before the server that loses a commit, or its answer, and with it the connection.

    One that comes `late` reaches the server when the next connection asks for the lock of the process. A commit is the word, or the
    run of a statement that is a whole transaction.
    """

    def __init__(self, postgres: PostgresRunner) -> None:
        self._postgres = postgres
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.lose = ""
        self.lost = 0
        self._late: tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def url(self, schema: str) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return self._postgres.url(schema=schema).replace(f":{urlsplit(self._postgres.url()).port}/", f":{port}/")

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        to_server_reader, to_server = await asyncio.open_connection("127.0.0.1", self._postgres.port)
        back = asyncio.ensure_future(self._back(to_server_reader, writer))
        whole = b""  # the name of a statement that is a whole transaction
        what = ""
        try:
            while chunk := await reader.read(65536):
                if made := re.search(rb"(__asyncpg_stmt_\w+__)\x00with linkspan_turn", chunk):
                    whole = made[1]
                if b"pg_advisory_lock" in chunk:
                    await self._deliver()
                if self.lose and (chunk == b"Q\x00\x00\x00\x0bcommit\x00" or (chunk[:1] == b"B" and whole and whole in chunk)):
                    what, self.lose = self.lose, ""
                    self.lost += 1
                    if what == "late":
                        self._late = (chunk, to_server_reader, to_server)
                    if what == "answer":
                        back.cancel()
                        await asyncio.wait([back])  # else it still reads, and the server may be left before it has committed
                        to_server.write(chunk)
                        await to_server_reader.read(1)
                    break
                to_server.write(chunk)
        finally:
            back.cancel()
            if what != "late":
                to_server.close()
            writer.close()

    async def _deliver(self) -> None:
        """Let the server have what was held back."""
        if self._late is not None:
            (chunk, reader, writer), self._late = self._late, None
            writer.write(chunk)
            await reader.read(1)
            writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
        writer.close()


@pytest.mark.parametrize("what", ["commit", "answer", "late"])
@pytest.mark.parametrize("claim", [True, False], ids=["claim", "no claim"])
async def test_group_whose_commit_or_answer_is_lost_is_done_once(postgres: PostgresRunner, schema: str, what: str, claim: bool) -> None:
    """The process' own row tells what became of it, with and without an inbox claim; numbers and positions are known then too."""
    done = Settled()
    async with Wire(postgres) as wire:
        store = await trapped(wire.url(schema), Trap())
        wire.lose = what
        unit = done.unit(("s", "1") if claim else None, [("insert into note values (?)", ("once",))], [message("m", "k")])
        assert await done.submit(store, unit) == [Outcome.COMMITTED]
        assert wire.lost == 1
        assert await store.read("select line from note") == [("once",)]
        assert [(m.id, m.sequence, m.position) for m in await store.unsent(0, 9)] == [("m", 1, unit.messages[0].position)]
        await store.aclose()


@pytest.mark.parametrize("carries", ["claim", "message"])
async def test_session_whose_answer_is_lost_is_asked_after(postgres: PostgresRunner, schema: str, carries: str) -> None:
    done = Settled()
    async with Wire(postgres) as wire:
        store = await trapped(wire.url(schema), Trap())
        unit = done.unit(("s", "1") if carries == "claim" else None, messages=[message("m")] if carries == "message" else [])
        session = await opened(store.begin(unit, NOTHING))
        await session.execute(INSERT, ("a", 1))
        wire.lose = "answer"
        await session.commit()
        assert (wire.lost, unit.outcome, done.order) == (1, Outcome.COMMITTED, [unit])
        assert await effects(store) == ["a"]
        await store.aclose()


@pytest.mark.parametrize("carries", ["claim", "message", "nothing"])
async def test_session_whose_commit_is_lost_is_unavailable_and_leaves_nothing(postgres: PostgresRunner, schema: str, carries: str) -> None:
    done = Settled()
    async with Wire(postgres) as wire:
        store = await trapped(wire.url(schema), Trap())
        unit = done.unit(("s", "1") if carries == "claim" else None, messages=[message("m")] if carries == "message" else [])
        session = await opened(store.begin(unit, NOTHING))
        await session.execute(INSERT, ("a", 1))
        wire.lose = "commit"
        with pytest.raises(Error) as refused:
            await session.commit()
        assert refused.value.code is Code.UNAVAILABLE
        assert ("may have been made" in str(refused.value)) is (carries == "nothing")
        assert (done.order, await effects(store)) == ([], [])
        if carries == "claim":
            assert await done.submit(store, done.unit(("s", "1"))) == [Outcome.COMMITTED]
        await store.aclose()


async def test_server_that_is_away_fails_units_as_transient_and_is_used_again(mortal: PostgresRunner, schema: str) -> None:
    done = Settled()
    store = await trapped(mortal.url(schema=schema), Trap())
    mortal.stop()
    units = [work(done, 1), work(done, 2)]
    assert await done.submit(store, *units) == [Outcome.FAILED] * 2
    assert all(unit.error and unit.error.code is Code.UNAVAILABLE for unit in units)
    for asked in (
        store.read("select 1"),
        store.begin(done.unit(), NOTHING),
        store.depth(),
        store.hold_lanes("shop", "a", keep=None, lease=9),
    ):
        with pytest.raises(Error) as refused:
            await asked
        assert refused.value.code is Code.UNAVAILABLE
        assert mortal.password not in str(refused.value)
    mortal.start()
    assert await done.submit(store, work(done, 1)) == [Outcome.COMMITTED]
    assert await effects(store) == ["r1"]
    await store.aclose()


async def test_row_that_a_session_holds_fails_its_writers_as_transient_and_no_others(postgres: PostgresRunner, schema: str) -> None:
    done = Settled()
    limits = PostgresLimits(lock=0.2)
    store = PostgresStore(postgres.url(schema=schema), name="shop", runtime=system(), limits=limits)
    await store.open()
    await store.migrate(SCRIPTS)
    await done.write(store, "held")
    session = await opened(store.begin(done.unit(), "update effect set amount = 2 where id = ?", ("held",)))
    units = [done.unit(statements=[(INSERT, (f"r{n}", 1))]) for n in range(4)]
    units.insert(2, done.unit(statements=[("update effect set amount = 3 where id = ?", ("held",))]))
    async with asyncio.timeout(50):
        outcomes = await done.submit(store, *units)
    assert [outcome is Outcome.FAILED for outcome in outcomes] == [False, False, True, False, False]
    assert units[2].error is not None
    assert units[2].error.transient
    await session.commit()
    assert len(await effects(store)) == 5
    await store.aclose()


async def test_process_that_ended_without_a_word_is_seen_once(postgres: PostgresRunner, schema: str) -> None:
    url = postgres.url(schema=schema)
    orderly = await trapped(url, Trap())
    lost = await trapped(url, Trap())
    assert (orderly.crashed, lost.crashed) == (False, False)
    await orderly.aclose()
    assert lost._writer._connection is not None
    lost._writer._connection.terminate()  # as the kernel does it for a killed process
    async with asyncio.timeout(20):
        while True:
            after = await trapped(url, Trap())
            found = after.crashed
            await after.aclose()
            if found:
                break
    again = await trapped(url, Trap())
    assert not again.crashed
    await again.aclose()
    await lost.aclose()
