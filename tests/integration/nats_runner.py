"""A nats-server of the wheel that a test starts, kills and brings back at the same address, and a proxy that plays a bad network."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIG = """
listen: 127.0.0.1:{port}
server_name: "t{port}"
max_payload: 1MB
authorization {{ user: u, password: secret }}
jetstream {{ store_dir: "{store}", sync_interval: {sync}, max_mem: 16MB }}
"""


def free_port() -> int:
    """Return a port of loopback that nobody has at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class NatsRunner:
    """One server process; loopback, a port that stays the same over restarts."""

    user, password = "u", "secret"

    def __init__(
        self, directory: Path, *, sync: str = "always", more: str = "", store: Path | None = None, under: Sequence[str] = ()
    ) -> None:
        self.port = free_port()
        self.name = f"t{self.port}"
        self.url = f"nats://127.0.0.1:{self.port}"
        self.directory = directory
        (directory / "server.conf").write_text(CONFIG.format(port=self.port, store=store or directory / "js", sync=sync) + more)
        self._under = list(under)
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        binary = Path(sysconfig.get_path("scripts")) / "nats-server"
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen([*self._under, binary, "-c", self.directory / "server.conf"], stdout=log, stderr=log)  # noqa: ASYNC220 - takes a millisecond
        async with asyncio.timeout(20):
            while not await self._answers():  # noqa: ASYNC110 - another process says nothing
                await asyncio.sleep(0.005)

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        line = await reader.readline()
        writer.close()
        return line.startswith(b"INFO ")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    def end(self) -> None:
        """SIGTERM, and wait until it has ended in order."""
        self._stop(signal.SIGTERM)

    def _stop(self, number: int) -> None:
        if self.process is None:
            return
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split() if self._under else []
        for pid in [int(child) for child in children] or [self.process.pid]:  # who watches it ends when it has ended
            os.kill(pid, number)
        self.process.wait(20)
        self.process = None

    def signal_kill(self) -> None:
        """SIGKILL, without waiting: for several at once."""
        if self.process is not None:
            self.process.kill()

    def kill(self) -> None:
        """SIGKILL, and wait until the kernel has closed its sockets."""
        self._stop(signal.SIGKILL)


class Proxy:
    """Stands between a client and the server: cuts, stalls, and puts words into the server's mouth."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: list[asyncio.StreamWriter] = []
        self._clients: list[asyncio.StreamWriter] = []
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close all connections, both ways."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()
        self._clients.clear()

    def stall(self) -> None:
        """Pass nothing on; connections stay open (a cable was pulled)."""
        self._flowing.clear()

    def flow(self) -> None:
        """Pass on again."""
        self._flowing.set()

    def say(self, line: bytes) -> None:
        """Send a line to every client as if the server had."""
        for writer in self._clients:
            if not writer.is_closing():
                writer.write(line)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._writers += [writer, back]
        self._clients.append(writer)
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.ensure_future(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
