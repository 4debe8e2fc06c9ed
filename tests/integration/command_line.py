"""The real command line in child processes: an app of its own folder, started, called, stopped and killed."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
APP = Path(__file__).with_name("cli_orders.py")
PATIENCE = 30.0
"""Seconds that a test waits for what must come, on a busy machine."""


def until(true: Callable[[], bool], what: str) -> None:
    """Look again and again at another process's traces until something is true."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.02)


class Folder:
    """A folder with an app in it, and the commands that are run there."""

    def __init__(self, path: Path, app: Path = APP) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        shutil.copy(app, path / APP.name)

    def environment(self, **settings: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LINKSPAN_")}
        return {**clean, "LINKSPAN_HTTP": "127.0.0.1:0", "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1", **settings}

    def command(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        argv = [sys.executable, "-m", "linkspan.cli", *arguments]
        return subprocess.run(
            argv, cwd=self.path, env=self.environment(**settings), capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def rows(self, *arguments: str) -> Any:
        """Run a command and return what it prints as JSON."""
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def query(self, service: str, sql: str) -> list[tuple[Any, ...]]:
        """Look into a service's database, beside the service."""
        with closing(sqlite3.connect(f"file:{self.path}/.linkspan/{service}.db?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()

    @property
    def runs(self) -> list[str]:
        """Return every run of a handler, in order."""
        file = self.path / "runs.txt"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else []

    @property
    def servers(self) -> list[int]:
        """Return the processes of the embedded server of this folder."""
        found: list[int] = []
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
            except OSError:
                continue
            if words and words[0].endswith(b"nats-server") and str(self.path).encode() in b" ".join(words):
                found.append(int(entry.name))
        return found


class Running:
    """`linkspan run` in a folder; what it says goes to files there."""

    def __init__(self, folder: Folder, *arguments: str, name: str = "run", **settings: str) -> None:
        self.folder = folder
        self.out, self.err = folder.path / f"{name}.out", folder.path / f"{name}.err"
        argv = [sys.executable, "-m", "linkspan.cli", "run", "cli_orders:app", *arguments]
        self.started = time.perf_counter()
        with self.out.open("a") as out, self.err.open("a") as err:
            before = out.tell()
            self.process = subprocess.Popen(argv, cwd=folder.path, env=folder.environment(**settings), stdout=out, stderr=err)
        self.seconds = 0.0
        self.address = ""
        self._wait(before)

    def _wait(self, before: int) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.err.read_text()
            said = self.out.read_text()[before:]
            found = re.search(r"^Ready: .*?(?: at (http://\S+))?$", said, re.MULTILINE) if said.endswith("\n") else None
            self.address = found[1] or "" if found else ""
            return found is not None

        until(ready, "it is ready")
        self.seconds = time.perf_counter() - self.started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def call(self, method: str, **fields: Any) -> tuple[int, Any]:
        """Call as curl does; return status and answer."""
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=PATIENCE)
        try:
            headers = {"content-type": "application/json"}
            connection.request("POST", f"/cli.orders.v1.Orders/{method}", json.dumps(fields), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def place(self, order_id: str, number: int = 1, *, pause: int = 0, note: str = "") -> tuple[int, Any]:
        return self.call("PlaceOrder", orderId=order_id, number=number, pause=pause, note=note)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.wait()
