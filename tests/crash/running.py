"""A crash run: start the processes, kill as told, start again what died, wait until nothing moves, and check what happened."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from linkspan.ports import LetterState
from linkspan.runtime import system
from linkspan.stores import open_store
from linkspan.testing.crash import CRASHED
from linkspan.testing.history import Entry, History, Kind, Violation, check
from tests.crash.children import Lane, Settings, drive, serve
from tests.crash.crash_app import GROUPS, HOPS
from tests.crash.topology import NOT_NOW, EmbeddedNats, NatsServers, Topology, sqlite_nats

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import nats

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
    """One system in one folder: a store and a broker (SQLite and NATS, unless told otherwise), two services, a driver.

    Where the store is shared there may be more `instances` of each service: `ledger.2` is the second of ledger.
    """

    def __init__(
        self,
        folder: Path,
        lanes: Sequence[Lane] = WORKLOAD,
        *,
        crash: Mapping[str, str] | None = None,
        limit: float = 45.0,
        on: Callable[[Path], AbstractAsyncContextManager[Topology]] = sqlite_nats,
        instances: int = 1,
        **options: Any,
    ) -> None:
        self.folder = folder
        self.crash = dict(crash or {})
        self.outcome = Outcome()
        self.topology: Topology
        self.driven = False
        self.processes = [name if number == 1 else f"{name}.{number}" for number in range(1, instances + 1) for name in SERVICES]
        self.ended_at: list[tuple[str, str]] = []
        self._on = on
        self._lives: dict[str, str] = {}
        self._killed: set[str] = set()
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
        async with self._on(self.folder) as topology:
            self.topology = topology
            store = topology.store.url("{service}")
            self.settings = Settings(self.folder, topology.broker.url, store, _free_port(), self._lanes, **self._options)
            try:
                for name in (*self.processes, "driver"):
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

    def start(self, name: str) -> None:
        """Start a process; `a;b` is a crash point for its first life and one for its second, later lives have none."""
        self._held_down.discard(name)
        target = drive if name == "driver" else serve
        crash, _, self.crash[name] = self.crash.get(name, "").partition(";")
        self._lives[name] = crash
        process = _fork.Process(target=target, args=(self.settings, name, crash), name=name, daemon=True)
        process.start()
        self._processes[name] = process

    def kill(self, name: str, *, hold: bool = False) -> None:
        """Send SIGKILL; with `hold` it stays down until `start`."""
        if hold:
            self._held_down.add(name)
        self._killed.add(name)
        self._processes[name].kill()

    def alive(self, name: str) -> bool:
        """Tell whether a process runs."""
        return self._processes[name].is_alive()

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
                # What is told to end is asked by whoever told it: an exit code can be read only once.
                if name in self._held_down or (name == "driver" and self.driven) or process.exitcode is None:
                    continue
                if name == "driver" and process.exitcode == 0:
                    self.driven = True
                    continue
                self._again(name, process.exitcode)
                break
            await asyncio.sleep(0.02)

    def kill_server(self) -> int:
        """Send SIGKILL to nats-server, which its watchdog starts again; return the process id it had."""
        broker = self.topology.broker
        assert isinstance(broker, EmbeddedNats)
        return broker.kill_server()

    @property
    def nats(self) -> nats.NATS:
        """A connection of our own."""
        broker = self.topology.broker
        assert isinstance(broker, NatsServers)
        return broker.client

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
            if name in self._killed:
                self._killed.discard(name)
            elif self._lives[name]:
                self.ended_at.append((name, self._lives[name]))
        elif code != 1 or "Error: unavailable" not in tail.rpartition("Traceback")[2]:
            raise AssertionError(f"Process '{name}' ended with {code}:\n{tail}")
        elif name in self.crash:
            self.crash[name] = f"{self._lives[name]};{self.crash[name]}"  # a life that met no broker was none
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
            if self._rows("linkspan_outbox") or self._rows("linkspan_scheduled"):
                return False
            for topic, group in GROUPS:
                if await self.topology.broker.pending(topic, group):
                    return False
            return self._rows("linkspan_outbox") + self._rows("linkspan_scheduled") == 0
        except NOT_NOW:
            return False

    async def _held(self) -> bool:
        """Redrive what is dead; tell whether anything is held."""
        held = False
        for name in SERVICES:
            dead = [position for (position,) in self.query(name, "select position from linkspan_letter where state = 'dead'")]
            held = held or bool(self.query(name, "select 1 from linkspan_letter"))
            if dead:
                await self.redrive(name, dead)
        return held

    async def redrive(self, name: str, positions: Sequence[int]) -> int:
        """Repair what made messages fail, then ask for them beside the running service, as the command line does."""
        (self.folder / "repaired").touch()
        store = open_store(self.topology.store.url(name), name=name, runtime=system(), exclusive=False)
        await store.open()
        try:
            return await store.redrive(positions, who="test", why="repaired", at=time.time())
        finally:
            await store.aclose()

    def letters(self, name: str, state: LetterState = LetterState.DEAD) -> list[tuple[str, str]]:
        """Return (key, id) of a service's letters in order."""
        rows = self.query(name, "select key, id from linkspan_letter where state = ? order by position", state.value)
        return [(key, id_) for key, id_ in rows]

    def query(self, name: str, sql: str, *args: object) -> list[tuple[Any, ...]]:
        """Look into a service's database."""
        return self.topology.store.query(name, sql, *args)

    def _rows(self, table: str) -> int:
        return sum(self.query(name, f"select count(*) from {table}")[0][0] for name in SERVICES)

    async def state(self) -> str:
        """Say what is left, for a run that does not end."""
        lines = [f"driven: {self.driven}"]
        for name in SERVICES:
            lines.append(f"{name}: outbox {self.query(name, 'select count(*), min(position) from linkspan_outbox')}")
            lines += [str(row) for row in self.query(name, "select key, id, state, attempts, due, code from linkspan_letter")]
        for topic, group in GROUPS:
            try:
                lines.append(f"{topic} {group}: pending {await self.topology.broker.pending(topic, group)}")
            except NOT_NOW as error:
                lines.append(f"{topic} {group}: {error!r}")
        return "\n".join(lines)

    # --- the check

    def effects(self, what: str, service: str) -> list[Entry]:
        """Return a hop's effects in the order of their commits."""
        rows = self.query(service, "select id, key, number from effect where what = ? order by position", what)
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
