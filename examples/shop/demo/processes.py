"""The shop's services as processes: started, told to be slow, killed, started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from examples.shop.demo.show import DemoError
from examples.shop.reconcile import SERVICES

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator
    from pathlib import Path

__all__ = ["Fleet", "ServiceProcess", "fleet"]

READY = 60.0
"""Seconds that a service may take to start on a busy machine."""
STOP = 40.0
"""Seconds that a service may take to drain."""


@dataclass(slots=True)
class ServiceProcess:
    """One service in a process of its own, its log beside its database."""

    name: str
    folder: Path
    settings: dict[str, str]
    address: str = ""
    counts: dict[str, int] = field(default_factory=dict[str, int])
    earlier: dict[str, int] = field(default_factory=dict[str, int])
    process: Process | None = None
    reader: asyncio.Task[None] | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def pid(self) -> int:
        """Return the process id."""
        if self.process is None:
            raise DemoError(f"The service '{self.name}' does not run: start it first.")
        return self.process.pid

    @property
    def log(self) -> Path:
        """Return the file with what the service logged."""
        return self.folder / f"{self.name}.log"

    def seen(self, what: str) -> int:
        """Return a count of its consumers, former processes of this service included."""
        return self.counts.get(what, 0) + self.earlier.get(what, 0)

    async def start(self) -> None:
        """Start the process and wait until it serves; at the address it had before, if it ran before."""
        http = self.address.removeprefix("http://") or "127.0.0.1:0"
        environment = {**os.environ, **self.settings, "LINKSPAN_DATA": str(self.folder), "LINKSPAN_HTTP": http, "PYTHONUNBUFFERED": "1"}
        self.ready.clear()
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "examples.shop.serve", self.name]
            self.process = await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops its services one by one
            )
        self.reader = asyncio.create_task(self._read(self.process))
        try:
            async with asyncio.timeout(READY):
                await self.ready.wait()
        except TimeoutError:
            raise DemoError(f"The service '{self.name}' did not start in {READY:.0f} s. {self._last_words()}") from None
        if self.process.returncode is not None:
            raise DemoError(f"The service '{self.name}' ended with {self.process.returncode}. {self._last_words()}")

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        return "\n    ".join(["Its log ends with:", *(line[:300] for line in lines)])

    async def _read(self, process: Process) -> None:
        """Take in what the service says about itself."""
        assert process.stdout is not None  # noqa: S101 - asked for above
        async for line in process.stdout:
            facts = json.loads(line)
            if "ready" in facts:
                self.address = facts["ready"] or self.address
                self.ready.set()
            else:
                self.counts = facts
        await process.wait()
        self.ready.set()

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """End it as a crash does: no drain, no goodbye."""
        self.signal(signal.SIGKILL)
        await self._gone()

    async def stop(self) -> None:
        """Ask it to drain and end; kill it when it does not."""
        if self.process is None or self.process.returncode is not None:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP):
                await self._gone()
        except TimeoutError:
            await self.kill()

    async def _gone(self) -> None:
        if self.process is not None and self.reader is not None:
            await self.process.wait()
            await self.reader
            self.earlier = {name: self.earlier.get(name, 0) + count for name, count in self.counts.items()}
            self.counts = {}

    async def drag(self, seconds: float) -> None:
        """Make it slow: let it run for a tenth of each half second, as a machine without a free core would."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.signal(signal.SIGSTOP)
            await asyncio.sleep(0.45)
            self.signal(signal.SIGCONT)
            await asyncio.sleep(0.05)


class Fleet(dict[str, ServiceProcess]):
    """All services by name."""

    def seen(self, what: str) -> int:
        """Add up a count over all services."""
        return sum(service.seen(what) for service in self.values())


@asynccontextmanager
async def fleet(folder: Path) -> AsyncGenerator[Fleet]:
    """Start every service; on leaving, drain and stop all of them."""
    services = Fleet({name: ServiceProcess(name, folder, {}) for name in SERVICES})
    try:
        await asyncio.gather(*(services[name].start() for name in SERVICES if name != "storefront"))
        known = {name: service.address for name, service in services.items() if service.address}
        services["storefront"].settings["LINKSPAN_ADDRESSES"] = ",".join(f"{name}={address}" for name, address in known.items())
        await services["storefront"].start()
        yield services
    finally:
        await asyncio.gather(*(service.stop() for service in services.values()))
