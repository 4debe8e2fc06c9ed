"""A nats-server of the wheel that a test starts, kills and brings back at the same address."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sysconfig
from pathlib import Path

CONFIG = """
listen: 127.0.0.1:{port}
server_name: "t{port}"
max_payload: 1MB
authorization {{ user: u, password: secret }}
jetstream {{ store_dir: "{directory}/js", sync_interval: {sync}, max_mem: 16MB }}
"""


class NatsRunner:
    """One server process; loopback, a port that stays the same over restarts."""

    user, password = "u", "secret"

    def __init__(self, directory: Path, *, sync: str = "always") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self.directory = directory
        (directory / "server.conf").write_text(CONFIG.format(port=self.port, directory=directory, sync=sync))
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        binary = Path(sysconfig.get_path("scripts")) / "nats-server"
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen([binary, "-c", self.directory / "server.conf"], stdout=log, stderr=log)  # noqa: ASYNC220 - takes a millisecond
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

    def kill(self) -> None:
        """SIGKILL, and wait until the kernel has closed its sockets."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
