"""Several instances of a service on one PostgreSQL and one NATS server: nothing is lost, doubled or turned round."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from linkspan.envelope import lane_of
from tests.integration.nats_runner import NatsRunner

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tests.integration.postgres_runner import PostgresRunner

pytestmark = pytest.mark.timeout(400)

PATIENCE = 90.0
LONG = float(os.environ.get("LINKSPAN_TEST_SECONDS", "4"))
"""Seconds under load between two steps."""
MOST = int(os.environ.get("LINKSPAN_TEST_INSTANCES", "4"))
"""As many instances there are at the top of a scaling."""


class Fleet:
    """The instances, and what the database says about them."""

    def __init__(self, folder: Path, nats: str, store: str, dsn: str) -> None:
        self._folder, self._nats, self._store, self._dsn = folder, nats, store, dsn
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.db: Any = None

    async def start(self, *names: str, writers: int = 0, keys: int = 200, pause: float = 0.0) -> None:
        """Start instances; return when each runs."""
        for name in names:
            command = [
                sys.executable,
                "-m",
                "tests.integration.many_child",
                name,
                self._nats,
                self._store,
                str(writers),
                str(keys),
                str(pause),
            ]
            url = self._nats.replace("//", "//u:secret@")
            command[4] = url
            with (self._folder / f"{name}.err").open("ab") as log:
                self.children[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parents[2])  # noqa: ASYNC220 - takes a millisecond
        for name in names:
            await self.until(lambda name=name: b"running" in (self._folder / f"{name}.err").read_bytes(), f"{name} runs")  # type: ignore[misc]
        if self.db is None:
            self.db = await asyncpg.connect(self._dsn, server_settings={"search_path": self._schema})

    @property
    def _schema(self) -> str:
        return self._store.rpartition("schema=")[2]

    async def until(self, true: Callable[[], Any], what: str) -> None:
        """Wait until something holds."""
        begun = time.monotonic()
        while True:
            found = true()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            if time.monotonic() - begun > PATIENCE:
                raise AssertionError(f"{what}: not within {PATIENCE:g} s\n" + self.logs())
            await asyncio.sleep(0.05)

    def logs(self) -> str:
        return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in sorted(self._folder.glob("*.err")))

    async def lanes(self, service: str = "shop") -> list[int]:
        """Return how many lanes each living owner has."""
        rows = await self.db.fetch("select count(*) from linkspan_lane where service = $1 and owner is not null group by owner", service)
        return sorted(row[0] for row in rows)

    async def lanes_of(self, name: str) -> set[int]:
        """Return the lanes that an instance has."""
        theirs = "select lane from linkspan_lane where service = 'shop' and owner like $1"
        return {row[0] for row in await self.db.fetch(theirs, f"%-{self.children[name].pid}-%")}

    async def spread(self, *counts: int) -> None:
        """Wait until lanes are spread so, for handling and for relaying."""

        async def true() -> bool:
            return await self.lanes() == sorted(counts) and await self.lanes("(outbox)") == sorted(counts)

        await self.until(true, f"lanes are spread {counts}")

    async def one(self, sql: str, *args: Any) -> Any:
        return await self.db.fetchval(sql, *args)

    async def drained(self) -> None:
        """Stop writing and wait until every event has its effect; then look whether the history is clean."""
        await self.db.execute("insert into halt values (true)")
        await asyncio.sleep(0.5)
        missing = "select coalesce(sum(last), 0) - (select count(*) from effect) from written"

        async def true() -> bool:
            return await self.one(missing) == 0

        await self.until(true, "every event has its effect")
        assert await self.one("select count(*) from inverted") == 0
        assert await self.one("select count(*) from linkspan_letter") == 0
        assert (
            await self.one("select count(*) from (select key, max(number) - count(*) as lost from effect group by key) k where lost <> 0")
            == 0
        )

    def end(self, *names: str) -> None:
        """End instances in order."""
        for name in names:
            self.children[name].send_signal(signal.SIGTERM)
        for name in names:
            assert self.children.pop(name).wait(40) == 0, self.logs()

    def kill(self) -> None:
        for child in self.children.values():
            child.kill()
            child.wait()


@asynccontextmanager
async def fleet_of(folder: Path, postgres: PostgresRunner) -> AsyncGenerator[Fleet]:
    async with NatsRunner(folder) as nats:
        fleet = Fleet(folder, nats.url, postgres.url(schema=f"many_{secrets.token_hex(4)}"), postgres.url())
        try:
            yield fleet
        finally:
            fleet.kill()
            if fleet.db is not None:
                await fleet.db.close()


async def test_lanes_of_a_killed_instance_are_taken_over_within_ten_seconds(tmp_path: Path, postgres: PostgresRunner) -> None:
    async with fleet_of(tmp_path, postgres) as fleet:
        await fleet.start("a")
        await fleet.start("b", writers=4)
        await fleet.spread(32, 32)
        await fleet.until(lambda: fleet.one("select count(distinct who) > 1 from effect"), "both handle")
        lanes = await fleet.lanes_of("a")
        mine = [f"k{number}" for number in range(1, 200) if lane_of(f"k{number}") in lanes]
        assert len(lanes) == 32

        fleet.children["a"].kill()
        killed = time.monotonic()
        at = await fleet.one("select clock_timestamp()")
        taken = "select count(distinct key) >= 10 from effect where who = 'b' and key = any($1) and at > $2"

        await fleet.until(lambda: fleet.one(taken, mine, at), "b handles keys of a")
        passed = time.monotonic() - killed
        print(f"taken over after {passed:.1f} s")
        assert passed < 10
        await fleet.drained()


async def test_instance_that_stood_still_cannot_write(tmp_path: Path, postgres: PostgresRunner) -> None:
    async with fleet_of(tmp_path, postgres) as fleet:
        await fleet.start("a")
        await fleet.start("b", writers=2)
        await fleet.spread(32, 32)
        lanes = await fleet.lanes_of("a")
        key = next(f"s{number}" for number in range(1000) if lane_of(f"s{number}") in lanes)
        process = Path(f"/proc/{fleet.children['a'].pid}/stat")

        await fleet.db.execute("insert into asked values ($1, 'stop a')", key)
        await fleet.until(lambda: process.read_text().rpartition(")")[2].split()[0] == "T", "a stands still inside its handler")
        await fleet.spread(64)
        await fleet.until(lambda: fleet.one("select count(*) = 1 from effect where key = $1", key), "b handles what a has begun")
        handled = await fleet.one("select count(*) from effect where who = 'a'")
        fleet.children["a"].send_signal(signal.SIGCONT)
        await fleet.spread(32, 32)
        await fleet.until(lambda: fleet.one("select count(*) > $1 from effect where who = 'a'", handled), "a handles again")

        assert await fleet.one("select who from effect where key = $1", key) == "b"
        await fleet.drained()


async def test_scaling_up_and_down_under_load_keeps_order_and_loses_nothing(tmp_path: Path, postgres: PostgresRunner) -> None:
    async with fleet_of(tmp_path, postgres) as fleet:
        await fleet.start("a", writers=8, keys=1000)
        await fleet.spread(64)
        await asyncio.sleep(LONG / 2)
        await fleet.start("b", "c", "d")
        await fleet.spread(16, 16, 16, 16)
        await asyncio.sleep(LONG / 2)
        more = [f"m{number}" for number in range(4, MOST)]
        for name in more:
            await fleet.start(name)
        if more:
            await fleet.spread(*(64 // MOST + (number < 64 % MOST) for number in range(MOST)))
            await asyncio.sleep(LONG)
            fleet.end(*more)
        fleet.end("d")
        await fleet.spread(22, 21, 21)
        fleet.end("b", "c")
        await fleet.spread(64)
        await fleet.drained()
        print("events:", await fleet.one("select count(*) from effect"))
