"""What is sent over nats-py's public API while the server is away is given up: its sender sends it again, in order, and it is not late."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import nats

from linkspan.brokers.nats_link import PublicLink, shut
from tests.integration.nats_runner import NatsRunner

if TYPE_CHECKING:
    from pathlib import Path


async def test_what_was_sent_while_the_server_was_away_does_not_come_late(tmp_path: Path) -> None:
    lost, back, got = asyncio.Event(), asyncio.Event(), asyncio.Queue[bytes]()

    async def disconnected() -> None:
        lost.set()

    async def reconnected() -> None:
        back.set()

    async def quiet(_error: Exception) -> None:
        """Say nothing of the lost connection: it is what is tried."""

    async with asyncio.timeout(40), NatsRunner(tmp_path) as server:
        login = {"user": server.user, "password": server.password, "reconnect_time_wait": 0.05, "max_reconnect_attempts": -1}
        client = await nats.connect(server.url, disconnected_cb=disconnected, reconnected_cb=reconnected, error_cb=quiet, **login)
        link = PublicLink(client)
        listener = await link.listen("shop", lambda _subject, _reply, _headers, data: got.put_nowait(data))
        link.send(b"shop", b"", b"", b"first")
        assert await got.get() == b"first"

        server.kill()
        await lost.wait()
        link.send(b"shop", b"", b"", b"given up")
        while link._sender is not None:
            await asyncio.wait([link._sender])
        await server.start()
        await back.wait()
        link.send(b"shop", b"", b"", b"new")

        assert await got.get() == b"new"
        await listener.close()
        await shut(client)
