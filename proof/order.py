"""Order per key: `python -m proof.order --events 5000000`, in shards of `--shard` events that are resumed.

Three instances of a service on one PostgreSQL and one NATS server, each with a relay and a third of 64 writers, which commit events of
1,000 keys (Zipf), several to a transaction. While they do, instances are killed and started again, stopped for as long as it takes
others to take their lanes over and continued, and the NATS server is killed. At the end each key's effects must be there, each once, in
the order of the commits.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import uvloop

from proof.sharding import Shards
from tests.integration.nats_runner import NatsRunner
from tests.integration.postgres_runner import PostgresRunner

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]
WRITERS = {"a": 22, "b": 21, "c": 21}
KEYS = 1_000
PATIENCE = 300.0
"""Seconds until all is handled once enough was written, or until anything moves at all."""
PAUSES = (1.0, 5.0)
"""Seconds between two blows."""
STILL = (0.5, 10.0)
"""Seconds that a stopped instance stands still; after six its lanes are another's."""
INVERTED = """
    select count(*) from (select number - coalesce(lag(number) over (partition by key order by position), 0) as step from effect) s
    where step <> 1
"""


class Fleet:
    """The instances of one shard, and what the database says about them."""

    def __init__(self, folder: Path, broker: NatsRunner, store: str, database: psycopg.Connection[Any], target: int) -> None:
        self._folder, self._broker, self._store, self._database, self._target = folder, broker, store, database, target
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self.stopped: dict[str, float] = {}
        self.kills = self.stops = self.broker_kills = 0

    def start(self, name: str) -> None:
        """Start an instance."""
        url = self._broker.url.replace("://", f"://{NatsRunner.user}:{NatsRunner.password}@")
        command = [sys.executable, "-m", "proof.order_app", name, url, self._store, str(WRITERS[name]), str(KEYS), str(self._target)]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)

    def keep_up(self) -> None:
        """Start what has died, continue what stood still for long enough."""
        now = time.monotonic()
        for name in WRITERS:
            if name in self.stopped and self.stopped[name] <= now:
                del self.stopped[name]
                self._children[name].send_signal(signal.SIGCONT)
            if name not in self._children or self._children[name].poll() is not None:
                self.stopped.pop(name, None)
                self.start(name)

    async def strike(self, source: random.Random) -> None:
        """Kill or stop an instance, or kill the broker."""
        chance, name = source.random(), source.choice(list(WRITERS))
        if chance < 0.15:  # noqa: PLR2004 - a share
            self._broker.kill()
            await self._broker.start()
            self.broker_kills += 1
        elif chance < 0.55 and name not in self.stopped:  # noqa: PLR2004 - a share
            self._children[name].send_signal(signal.SIGSTOP)
            self.stopped[name] = time.monotonic() + source.uniform(*STILL)
            self.stops += 1
        else:
            self._children[name].kill()
            self._children[name].wait()
            self.kills += 1

    def one(self, sql: str) -> int:
        """Ask for one number."""
        row = self._database.execute(sql).fetchone()
        return int(row[0]) if row is not None else 0

    def end(self) -> None:
        """Kill all."""
        for child in self._children.values():
            child.kill()
            child.wait()

    async def run(self, source: random.Random) -> None:
        """Strike until enough was written, then wait until all of it is handled."""
        next_blow = time.monotonic() + source.uniform(*PAUSES)
        begun = False
        moved, before = time.monotonic(), (-1, -1)
        while True:
            self.keep_up()
            with suppress(psycopg.errors.UndefinedTable):
                written = self.one("select coalesce(sum(last), 0) from written")
                handled = self.one("select count(*) from effect")
                begun = begun or handled > 0
                if (
                    written >= self._target
                    and handled >= written
                    and not self.stopped
                    and not self.one("select count(*) from linkspan_outbox")
                ):
                    return
                if (written, handled) != before:
                    moved, before = time.monotonic(), (written, handled)
                if begun and written < self._target and time.monotonic() > next_blow:
                    await self.strike(source)
                    next_blow = time.monotonic() + source.uniform(*PAUSES)
            if time.monotonic() - moved > PATIENCE:
                raise AssertionError(f"nothing has moved for {PATIENCE:.0f} s: {before[1]} of {before[0]} handled; see {self._folder}")
            await asyncio.sleep(0.1)


async def one(number: int, events: int, server: PostgresRunner) -> dict[str, Any]:
    """Run one shard in a schema of its own, which is dropped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="linkspan-order-"))
    schema, began = f"order_{os.getpid()}_{number}", time.monotonic()
    with psycopg.connect(server.url(), autocommit=True) as database:
        database.execute(f"set search_path = {schema}")
        async with NatsRunner(folder) as broker:
            fleet = Fleet(folder, broker, server.url(schema=schema), database, events)
            problem = ""
            try:
                await fleet.run(random.Random(f"order/{number}"))
            except AssertionError as error:
                problem = str(error)
            finally:
                fleet.end()
        written = fleet.one("select coalesce(sum(last), 0) from written")
        found = {
            "events": written,
            "lost": written - fleet.one("select count(*) from effect"),
            "inverted": fleet.one(INVERTED),
            "letters": fleet.one("select count(*) from linkspan_letter"),
            "taken": fleet.one("select coalesce(sum(epoch), 0) from linkspan_lane"),
            "kills": fleet.kills,
            "stops": fleet.stops,
            "broker_kills": fleet.broker_kills,
            "seconds": round(time.monotonic() - began, 1),
        }
        if not problem and not found["lost"] + found["inverted"] + found["letters"]:
            shutil.rmtree(folder, ignore_errors=True)
            database.execute(f"drop schema {schema} cascade")
    return {**found, **({"failed": problem} if problem else {})}


def summary(done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of the proof."""
    names = ("events", "kills", "stops", "broker_kills", "taken", "lost", "inverted", "letters")
    total = {what: sum(found[what] for found in done) for what in names}
    failed = [found["failed"] for found in done if "failed" in found]
    broken = total["lost"] + total["inverted"] + total["letters"] + len(failed)
    tried = f"{total['events']} events, {total['kills']} instances killed, {total['stops']} stopped and continued, "
    tried += f"{total['broker_kills']} brokers killed, lanes taken {total['taken']} times"
    return {"tried": tried, **total, "failed": failed[:5], "violations": broken, "holds": total["events"] > 0 and not broken}


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options; exit with 1 when a promise was broken."""
    shards = Shards.of("proof.order", __doc__, arguments, events=100_000, shard=50_000)
    try:
        server = PostgresRunner()
    except pytest.skip.Exception as reason:
        return shards.not_run(str(reason).removeprefix("not run: "))
    try:
        server.start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return shards.prove(lambda number, events: runner.run(one(number, events, server)), summary)
    finally:
        server.remove()


if __name__ == "__main__":
    sys.exit(main())
