"""Cut the power under SQLite and nats-server when something was just acknowledged; restart; hold what is left to the history."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from nats.aio.client import Client

from linkspan.testing.history import Entry, History, Kind, Violation, check
from tests.integration.nats_runner import NatsRunner
from tests.power.powered_app import TOPIC, OrderPlaced

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
LANES = 8


def missing() -> str:
    """Return why no power can be cut here, empty where it can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be used on this machine"
    if shutil.which("fusermount3") is None and shutil.which("fusermount") is None:
        return "there is no fusermount: run scripts/get_power_tools.sh"
    try:
        import mfusepy  # noqa: F401 - it loads libfuse when it is imported
    except (ImportError, OSError) as error:
        return f"mfusepy cannot be loaded ({type(error).__name__}): run scripts/get_power_tools.sh"
    return ""


class Machine:
    """A disk that forgets, a NATS server and a database on it."""

    def __init__(self, folder: Path, *, sync: str = "always", synchronous: str = "full") -> None:
        self.mount, self._platter = folder / "disk", folder / "platter"
        for each in (self.mount, self._platter):
            each.mkdir(parents=True)
        self.history = History(folder / "history")
        self.nats = NatsRunner(folder, sync=sync, store=self.mount / "js")
        self.database = self.mount / "orders.db"
        self._synchronous = synchronous
        self._log = folder / "log"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._disk: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.nats.url.replace("://", f"://{self.nats.user}:{self.nats.password}@")

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        with self._log.open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, env=environment, stdout=log, stderr=log)

    async def on(self) -> None:
        """Mount the disk and start the server."""
        self._disk = self._run("tests.power.disk", str(self.mount), str(self._platter))
        async with asyncio.timeout(PATIENCE):
            while not self.mount.is_mount():  # noqa: ASYNC110 - another process says nothing
                await asyncio.sleep(0.01)
        await self.nats.start()

    def write(self, first: int) -> None:
        """Start the service, which writes until it is killed."""
        more = (str(self.history._path), str(first), str(LANES), self._synchronous)
        self._processes.append(self._run("tests.power.powered_app", self.url, str(self.database), *more))

    async def acknowledged(self, count: int) -> None:
        """Wait until so many orders were acknowledged in all."""
        async with asyncio.timeout(PATIENCE):
            while sum(each.kind is Kind.ACKNOWLEDGED for each in self.history.read()) < count:
                if any(process.poll() is not None for process in self._processes):
                    raise RuntimeError(f"The service ended: {self._log.read_text(errors='replace')[-2000:]}")
                await asyncio.sleep(0.01)

    def cut(self) -> None:
        """Kill everything, and the disk's cache with it."""
        for process in self._processes:
            process.send_signal(signal.SIGSTOP)
        self.nats.kill()
        assert self._disk is not None
        self._disk.kill()
        self._disk.wait()
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()
        self._unmount()

    def _unmount(self) -> None:
        for tool in ("fusermount3", "fusermount"):
            if shutil.which(tool) is not None:
                subprocess.run([tool, "-u", "-z", str(self.mount)], check=False, capture_output=True)
                return

    async def drain(self) -> None:
        """Let the service send what waits in its outbox."""
        process = self._run("tests.power.powered_app", self.url, str(self.database), "drain")
        code = await asyncio.wait_for(asyncio.to_thread(process.wait), PATIENCE)
        if code:
            raise RuntimeError(f"The service could not start again: {self._log.read_text(errors='replace')[-2000:]}")

    def off(self) -> None:
        """Clean up, whatever runs."""
        if self._disk is not None:
            self.cut()

    # --- what is left

    def rows(self) -> list[Entry]:
        with closing(sqlite3.connect(self.database)) as connection:
            found = connection.execute("select id, key, number from placed order by position").fetchall()
        return [Entry(Kind.EFFECT, id_, key, number, "row") for id_, key, number in found]

    async def events(self) -> list[Entry]:
        """Return the events of the stream in its order, each id once, as inboxes take them."""
        client = Client()
        await client.connect(self.nats.url, user=self.nats.user, password=self.nats.password)
        try:
            stream = TOPIC.replace(".", "_")
            state = json.loads((await client.request(f"$JS.API.STREAM.INFO.{stream}", timeout=10)).data)
            if "error" in state:
                return []
            found: dict[str, Entry] = {}
            for sequence in range(state["state"]["first_seq"], state["state"]["last_seq"] + 1):
                asked = json.dumps({"seq": sequence}).encode()
                answer = json.loads((await client.request(f"$JS.API.STREAM.MSG.GET.{stream}", asked, timeout=10)).data)
                if "message" in answer:  # what is not there is missed by the history
                    event = OrderPlaced.from_binary(base64.b64decode(answer["message"]["data"]))
                    found.setdefault(event.id, Entry(Kind.EFFECT, event.id, event.key, event.number, "event"))
            return list(found.values())
        finally:
            await client.close()

    async def violations(self) -> list[Violation]:
        """Hold rows and events to the history, and events to rows."""
        rows, events = self.rows(), await self.events()
        found = check([*self.history.read(), *rows, *events], ["row", "event"])
        there = {each.id for each in rows}
        return found + [
            Violation("ghost", "event", each.id, "It was published and its row is gone.") for each in events if each.id not in there
        ]


@dataclass(slots=True)
class Cuts:
    """What came of some cuts on one machine."""

    cuts: int = 0
    acknowledged: int = 0
    violations: list[Violation] = field(default_factory=list["Violation"])


async def power_cuts(folder: Path, count: int, seed: int, *, least: int = 20, sync: str = "always", synchronous: str = "full") -> Cuts:
    """Cut `count` times, each after a random number of further acknowledgements."""
    chance, done = random.Random(seed), Cuts()
    machine = Machine(folder, sync=sync, synchronous=synchronous)
    try:
        for _ in range(count):
            await machine.on()
            entries = machine.history.read()
            before = sum(each.kind is Kind.ACKNOWLEDGED for each in entries)
            machine.write(1 + max((each.number for each in entries), default=0))
            await machine.acknowledged(before + chance.randint(least, 200))
            machine.cut()
            done.cuts += 1
            await machine.on()
            await machine.drain()
            done.violations += await machine.violations()
            if done.violations:
                break
            machine.cut()
        done.acknowledged = sum(each.kind is Kind.ACKNOWLEDGED for each in machine.history.read())
    finally:
        machine.off()
    return done
