"""A crash run: start the processes, kill as told, start again what died, wait until nothing moves, and check what happened."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import nats

from linkspan.brokers.embedded import embedded_nats
from linkspan.brokers.watchdog import State
from linkspan.ports import LetterState
from linkspan.runtime import system
from linkspan.stores import open_store
from linkspan.testing.crash import CRASHED
from linkspan.testing.history import Entry, History, Kind, Violation, check
from tests.crash.children import Lane, Settings, drive, serve
from tests.crash.crash_app import GROUPS, HOPS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from linkspan.brokers.embedded import EmbeddedServer

SERVICES = ("orders", "ledger")

WORKLOAD = (
    *(Lane(f"call{number}") for number in range(3)),
    *(Lane(f"checked{number}", "checked", "checked") for number in range(2)),
    *(Lane(f"send{number}", "send") for number in range(3)),
    Lane("fan", "call", count=2, fan=48),
    *(Lane(f"burst{number}", "call", count=4, fan=8, burst=True, pause=0.05) for number in range(2)),
    Lane("flaky", "call", "flaky", count=1, fan=8, burst=True),
    Lane("parked", "call", "parked", count=1, fan=6, burst=True),
    Lane("dead", "call", "dead", count=1, fan=6, burst=True),
    Lane("scheduled", "send", "later", count=3),
    Lane("scheduled-burst", "call", "later", count=1, fan=8, burst=True),
    Lane("large", "send", "large", count=4),
    Lane("late", "send", "parked", count=5, pause=0.1),
)
"""Every way in, every way to fail; about 200 things asked for, many of a key at once."""

_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["tests.crash.children"])


@dataclass(slots=True)
class Outcome:
    """How a run ended. `deaths` are (process, exit code) in order, `sums` count what was asked, answered and done."""

    violations: list[Violation] = field(default_factory=list["Violation"])
    deaths: list[tuple[str, int]] = field(default_factory=list["tuple[str, int]"])
    sums: dict[str, int] = field(default_factory=dict["str", "int"])
    seconds: float = 0.0


class Run:
    """One system in one folder: a NATS server of its own, two services, a driver."""

    def __init__(
        self, folder: Path, lanes: Sequence[Lane] = WORKLOAD, *, crash: Mapping[str, str] | None = None, limit: float = 45.0, **options: Any
    ) -> None:
        self.folder = folder
        self.crash = dict(crash or {})
        self.outcome = Outcome()
        self.server: EmbeddedServer
        self.nats: nats.NATS
        self.driven = False
        self._lanes = tuple(lanes)
        self._limit = limit
        self._options = options
        self._processes: dict[str, multiprocessing.process.BaseProcess] = {}
        self._held_down: set[str] = set()
        self._watcher: asyncio.Task[None] | None = None
        self.settings: Settings

    # --- life

    @asynccontextmanager
    async def started(self) -> AsyncGenerator[Run]:
        """Run the system; whatever dies is started again, what dies unasked fails the run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        async with embedded_nats(self.folder / "nats") as server:
            self.server = server
            url = server.url.replace("://", f"://{quote(server.user)}:{quote(server.password)}@")
            self.settings = Settings(self.folder, url, _free_port(), self._lanes, **self._options)
            self.nats = await nats.connect(
                server.url, user=server.user, password=server.password, max_reconnect_attempts=-1, error_cb=_ignore
            )
            try:
                for name in (*SERVICES, "driver"):
                    self.start(name)
                self._watcher = asyncio.get_running_loop().create_task(self._watch())
                yield self
            finally:
                await self._stop()
        self.outcome.seconds = time.monotonic() - begun

    async def _stop(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        for process in self._processes.values():
            process.kill()
            process.join()
        await self.nats.close()

    def start(self, name: str) -> None:
        """Start a process; `a;b` is a crash point for its first life and one for its second, later lives have none."""
        self._held_down.discard(name)
        target = drive if name == "driver" else serve
        crash, _, self.crash[name] = self.crash.get(name, "").partition(";")
        process = _fork.Process(target=target, args=(self.settings, name, crash), name=name, daemon=True)
        process.start()
        self._processes[name] = process

    def kill(self, name: str, *, hold: bool = False) -> None:
        """Send SIGKILL; with `hold` it stays down until `start`."""
        if hold:
            self._held_down.add(name)
        self._processes[name].kill()

    def pid(self, name: str) -> int:
        """Return a process's id."""
        found = self._processes[name].pid
        assert found is not None
        return found

    def started_once(self, name: str) -> bool:
        """Tell whether a service has come up."""
        log = self.folder / f"{name}.log"
        return log.exists() and "Running." in log.read_text(encoding="utf-8")

    async def terminate(self, name: str) -> int:
        """Send SIGTERM and return the exit code."""
        self._held_down.add(name)
        process = self._processes[name]
        process.terminate()
        await asyncio.to_thread(process.join)
        return process.exitcode if process.exitcode is not None else -1

    async def _watch(self) -> None:
        while True:
            for name, process in self._processes.items():
                if process.exitcode is None or (name == "driver" and self.driven) or name in self._held_down:
                    continue
                if name == "driver" and process.exitcode == 0:
                    self.driven = True
                    continue
                self._again(name, process.exitcode)
                break
            await asyncio.sleep(0.02)

    def kill_server(self) -> int:
        """Send SIGKILL to nats-server, which its watchdog starts again; return the process id it had."""
        pid: int = State.parse((self.folder / "nats" / "run" / "state.json").read_text(encoding="utf-8")).server
        os.kill(pid, signal.SIGKILL)
        return pid

    # --- the broker

    async def append(self, topic: str, name: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Publish as a foreign program would; raises when it is not stored."""
        await self.nats.jetstream().publish(f"{topic}.{name}.0", data, headers=dict(headers or {}))

    async def publish_again(self, topic: str) -> int:
        """Publish everything that a topic holds once more, past the broker's own recognition of duplicates."""
        stream, stored = self.nats.jetstream(), topic.replace(".", "_")
        last = (await stream.stream_info(stored)).state.last_seq
        for sequence in range(1, last + 1):
            message = await stream.get_msg(stored, sequence)
            headers = {name: value for name, value in (message.headers or {}).items() if not name.startswith("Nats-")}
            await self.nats.publish(str(message.subject), message.data or b"", headers=headers)
        await self.nats.flush()
        return last

    def _again(self, name: str, code: int) -> None:
        """Start again what was killed, and what met no broker when it came up, as any supervisor of processes would."""
        tail = (self.folder / f"{name}.log").read_text("utf-8", "replace")[-4000:]
        if code in CRASHED:
            self.outcome.deaths.append((name, code))
        elif code != 1 or "Error: unavailable" not in tail.rpartition("Traceback")[2]:
            raise AssertionError(f"Process '{name}' ended with {code}:\n{tail}")
        self.start(name)

    # --- the end

    async def finish(self) -> Outcome:
        """Wait until everything has been asked for and nothing moves, redriving what is dead; then check."""
        try:
            await self.until(self._over, limit=self._limit)
        except TimeoutError:
            self.outcome.violations.append(Violation("stuck", "", "", await self.state()))
        self.verify()
        return self.outcome

    async def _over(self) -> bool:
        return self.driven and await self.quiet() and await self.quiet()

    async def until(self, true: Callable[[], bool | Awaitable[bool]], *, limit: float = 20.0) -> None:
        """Look again and again until something is true; raises TimeoutError."""
        end = time.monotonic() + limit
        while True:
            if self._watcher is not None and self._watcher.done():
                self._watcher.result()
            found = true()
            if found if isinstance(found, bool) else await found:
                return
            if time.monotonic() > end:
                raise TimeoutError
            await asyncio.sleep(0.03)

    async def quiet(self) -> bool:
        """Tell whether nothing is under way; redrive the dead when only they are left."""
        return await self.delivered() and not await self._held()

    async def delivered(self) -> bool:
        """Tell whether every message has reached its consumer's database."""
        try:
            for topic, group in GROUPS:
                if await self.pending(topic, group):
                    return False
            return self._rows("linkspan_outbox") + self._rows("linkspan_scheduled") == 0
        except (sqlite3.OperationalError, nats.errors.Error, nats.js.errors.APIError):
            return False

    async def pending(self, topic: str, group: str) -> int:
        """Return how many messages a group has not settled yet."""
        info = await self.nats.jetstream().consumer_info(topic.replace(".", "_"), group)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def _held(self) -> bool:
        """Redrive what is dead; tell whether anything is held."""
        held = False
        for name in SERVICES:
            with closing(self.database(name)) as database:
                dead = [position for (position,) in database.execute("select position from linkspan_letter where state = 'dead'")]
                held = held or bool(database.execute("select count(*) from linkspan_letter").fetchone()[0])
            if dead:
                await self.redrive(name, dead)
        return held

    async def redrive(self, name: str, positions: Sequence[int]) -> int:
        """Repair what made messages fail, then ask for them beside the running service, as the command line does."""
        (self.folder / "repaired").touch()
        store = open_store(f"sqlite:///{self.folder}/{name}.db", name=name, runtime=system(), exclusive=False)
        await store.open()
        try:
            return await store.redrive(positions, who="test", why="repaired", at=time.time())
        finally:
            await store.aclose()

    def letters(self, name: str, state: LetterState = LetterState.DEAD) -> list[tuple[str, str]]:
        """Return (key, id) of a service's letters in order."""
        with closing(self.database(name)) as database:
            return database.execute("select key, id from linkspan_letter where state = ? order by position", (state.value,)).fetchall()

    def database(self, name: str) -> sqlite3.Connection:
        """Look into a service's database."""
        return sqlite3.connect(f"file:{self.folder}/{name}.db?mode=ro", uri=True, timeout=5.0)

    def _rows(self, table: str) -> int:
        count = 0
        for name in SERVICES:
            with closing(self.database(name)) as database:
                count += database.execute(f"select count(*) from {table}").fetchone()[0]
        return count

    async def state(self) -> str:
        """Say what is left, for a run that does not end."""
        lines = [f"driven: {self.driven}"]
        for name in SERVICES:
            with closing(self.database(name)) as database:
                lines.append(f"{name}: outbox {database.execute('select count(*), min(position) from linkspan_outbox').fetchall()}")
                lines += [str(row) for row in database.execute("select key, id, state, attempts, due, code from linkspan_letter")]
        for topic, group in GROUPS:
            info = await self.nats.jetstream().consumer_info(topic.replace(".", "_"), group)
            lines.append(f"{topic} {group}: pending {info.num_pending}, ack pending {info.num_ack_pending}, floor {info.ack_floor}")
        return "\n".join(lines)

    # --- the check

    def effects(self, what: str, service: str) -> list[Entry]:
        """Return a hop's effects in the order of their commits."""
        with closing(self.database(service)) as database:
            rows = database.execute("select id, key, number from effect where what = ? order by position", (what,)).fetchall()
        return [Entry(Kind.EFFECT, id_, key, number, what) for id_, key, number in rows]

    def verify(self) -> None:
        """Check each hop against what came before it: a committed effect is an acknowledgement to the next hop."""
        before = {"": History(self.folder / "history.jsonl").read()}
        for what, service, after in HOPS:
            there = self.effects(what, service)
            self.outcome.violations += check([*before[after], *there], [what])
            before[what] = [Entry(Kind.ACKNOWLEDGED, entry.id, entry.key, entry.number) for entry in there]
            self.outcome.sums[what] = len(there)
        kinds = [entry.kind for entry in before[""]]
        self.outcome.sums["invoked"], self.outcome.sums["acknowledged"] = kinds.count(Kind.INVOKED), kinds.count(Kind.ACKNOWLEDGED)

    def counts(self, name: str) -> dict[str, int]:
        """Return the points that a process passed until it ended in order."""
        found: dict[str, int] = json.loads((self.folder / f"{name}.points.json").read_text(encoding="utf-8"))
        return found


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def _ignore(_error: Exception) -> None:
    """Say nothing: the server is killed on purpose."""
