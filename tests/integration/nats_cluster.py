"""Three nats-servers of the wheel as one cluster on loopback; any of them is killed and brought back at the same address."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Self

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tests.integration.nats_runner import NatsRunner, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PATIENCE = 60.0
"""Seconds until the cluster has to have a leader; it takes two on an idle machine."""
ANSWER = 1.0
"""Seconds until a request is made again: what was asked of a leader that died gets no answer."""


class NatsCluster:
    """`async with NatsCluster(folder) as cluster`: three servers, file storage, synced before they acknowledge. One is no cluster."""

    user, password = NatsRunner.user, NatsRunner.password

    def __init__(self, directory: Path, *, size: int = 3, sync: str = "always", more: str = "") -> None:
        routes = [free_port() for _ in range(size)]
        everybody = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in routes)
        self.nodes: list[NatsRunner] = []
        for port in routes:
            folder = directory / f"node{len(self.nodes)}"
            folder.mkdir(parents=True)
            cluster = f'cluster {{ name: "tests", listen: "127.0.0.1:{port}", routes: [{everybody}] }}\n' if size > 1 else ""
            self.nodes.append(NatsRunner(folder, sync=sync, more=cluster + more))

    @property
    def urls(self) -> list[str]:
        """Return the address of each server."""
        return [node.url for node in self.nodes]

    @property
    def url(self) -> str:
        """Return the address of all of them, with the login, as users write it."""
        hosts = ",".join(node.url.removeprefix("nats://") for node in self.nodes)
        return f"nats://{self.user}:{self.password}@{hosts}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL all that run."""
        for node in self.nodes:
            node.signal_kill()
        for node in self.nodes:
            node.kill()

    async def start(self) -> None:
        """Start those that do not run, and wait until streams can be made."""
        await asyncio.gather(*(node.start() for node in self.nodes if node.process is None))
        async with asyncio.timeout(PATIENCE):
            while not await self._has_leader():  # noqa: ASYNC110 - other processes say nothing
                await asyncio.sleep(0.05)

    async def _has_leader(self) -> bool:
        """Make a stream of as many replicas as there are servers, once all of them follow its leader."""
        config = {"name": "probe", "subjects": ["cluster.probe"], "storage": "file", "num_replicas": len(self.nodes)}
        try:
            await self.ask("$JS.API.STREAM.CREATE.probe", config)
            found = await self.ask("$JS.API.STREAM.INFO.probe")
        except (NatsError, OSError, TimeoutError):
            return False
        return "config" in found and all(replica["current"] for replica in found.get("cluster", {}).get("replicas", ()))

    async def connected(self) -> Client:
        """Return a client of any server that runs."""

        async def ignore(_: Exception) -> None: ...

        client = Client()
        running = [node.url for node in self.nodes if node.process is not None]
        await client.connect(running, user=self.user, password=self.password, error_cb=ignore, max_reconnect_attempts=1, connect_timeout=2)
        return client

    async def ask(self, subject: str, body: Any = None) -> dict[str, Any]:
        """Send one JetStream request, on a connection of its own."""
        client = await self.connected()
        try:
            answer = await client.request(subject, b"" if body is None else json.dumps(body).encode(), timeout=ANSWER)
        finally:
            await client.close()
        found: dict[str, Any] = json.loads(answer.data)
        return found

    async def leader(self, what: str) -> NatsRunner:
        """Return the server that leads a stream (`name`) or a consumer (`stream.name`), waiting until there is one."""
        subject = f"$JS.API.CONSUMER.INFO.{what}" if "." in what else f"$JS.API.STREAM.INFO.{what}"
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    name = ((await self.ask(subject)).get("cluster") or {}).get("leader")
                except (NatsError, OSError, TimeoutError):
                    name = None
                for node in self.nodes:
                    if node.name == name and node.process is not None:
                        return node
                await asyncio.sleep(0.05)

    def others(self, node: NatsRunner) -> Sequence[NatsRunner]:
        """Return the other servers."""
        return [each for each in self.nodes if each is not node]
