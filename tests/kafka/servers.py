"""Apache Kafka on this machine: one to three brokers (KRaft) that tests start, kill and bring back at the same addresses."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LIBS = Path(__file__).resolve().parents[2] / ".make" / "kafka" / "libs"
HEAP = "256m"
CLUSTER = "bGlua3NwYW4gdGVzdHMgIQ"
STARTED = b"Kafka Server started"


def needs_kafka() -> None:
    """Skip, by name, where the server is not there."""
    if shutil.which("java") is None or not LIBS.is_dir():
        pytest.skip("not run: Apache Kafka is not there: run scripts/get_kafka.sh")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _java(*arguments: str) -> list[str]:
    flags = [f"-Xmx{HEAP}", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
    return ["java", *flags, "-cp", f"{LIBS}/*", *arguments]


class KafkaServer:
    """One broker, which is a controller too."""

    def __init__(self, directory: Path, node: int) -> None:
        self.directory = directory
        self.node = node
        self.port = _free_port()
        self.controller = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True)

    @property
    def settings(self) -> Path:
        return self.directory / "server.properties"

    def write(self, settings: Mapping[str, str]) -> None:
        self.settings.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    async def format(self) -> None:
        """Make the directories that a new broker starts from."""
        arguments = _java("kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", str(self.settings))
        process = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()

    async def start(self) -> None:
        """Start, and wait until it says that it has."""
        log = self.directory / "server.log"
        begun = log.stat().st_size if log.exists() else 0
        environment = os.environ | {"CLASSPATH": ""}
        with log.open("ab") as into:
            self.process = subprocess.Popen(_java("kafka.Kafka", str(self.settings)), stdout=into, stderr=into, env=environment)  # noqa: ASYNC220 - takes a millisecond
        async with asyncio.timeout(60):
            while STARTED not in log.read_bytes()[begun:]:
                assert self.process.poll() is None, log.read_text()[-4000:]
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, and wait until the kernel has closed its sockets."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class KafkaCluster:
    """Brokers 1..n on loopback; `more` goes into all settings, `each` into those of one broker."""

    def __init__(
        self, directory: Path, brokers: int = 1, more: Mapping[str, str] | None = None, each: Sequence[Mapping[str, str]] = ()
    ) -> None:
        self.servers = [KafkaServer(directory / f"broker{node}", node) for node in range(1, brokers + 1)]
        for place, server in enumerate(self.servers):
            server.write(self._settings(server) | dict(more or {}) | dict(each[place] if each else {}))
        self._formatted = False
        self._ports: dict[str, int] = {}
        self.folder = directory

    @property
    def addresses(self) -> str:
        return ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    @property
    def url(self) -> str:
        return f"kafka://{self.addresses}"

    def listen(self, listeners: Mapping[str, str]) -> None:
        """Make the first broker listen under more names, each with a security protocol."""
        self._ports = {name: _free_port() for name in listeners}
        own = self._settings(self.servers[0])
        places = [own["listeners"], *[f"{name}://127.0.0.1:{port}" for name, port in self._ports.items()]]
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **listeners}
        mapped = ",".join(f"{name}:{protocol}" for name, protocol in protocols.items())
        self.more({"listeners": ",".join(places), "listener.security.protocol.map": mapped})

    def more(self, settings: Mapping[str, str]) -> None:
        """Give the first broker more settings."""
        with self.servers[0].settings.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())

    def at(self, listener: str) -> str:
        """Return the address of one of `listen`."""
        return f"127.0.0.1:{self._ports[listener]}"

    def _settings(self, server: KafkaServer) -> dict[str, str]:
        copies = str(len(self.servers))
        return {
            "process.roles": "broker,controller",
            "node.id": str(server.node),
            "controller.quorum.voters": ",".join(f"{each.node}@127.0.0.1:{each.controller}" for each in self.servers),
            "listeners": f"PLAINTEXT://127.0.0.1:{server.port},CONTROLLER://127.0.0.1:{server.controller}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": f"{server.directory}/log",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "share.coordinator.state.topic.replication.factor": copies,
            "log.index.size.max.bytes": "65536",
            "group.initial.rebalance.delay.ms": "0",
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "250",
            "num.network.threads": "2",
            "num.io.threads": "2",
            "log.cleaner.dedupe.buffer.size": "4194304",
        }

    async def start(self) -> None:
        """Start those that do not run."""
        if not self._formatted:
            await asyncio.gather(*[server.format() for server in self.servers])
            self._formatted = True
        await asyncio.gather(*[server.start() for server in self.servers if server.process is None])

    def kill(self) -> None:
        """Kill all."""
        for server in self.servers:
            server.kill()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
