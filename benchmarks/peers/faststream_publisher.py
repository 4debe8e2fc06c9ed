"""FastStream as a publisher: pydantic models to JetStream, each publish awaits the broker's ack."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from faststream.nats import NatsBroker
from nats.js.api import StreamConfig

from benchmarks import payload, worker
from benchmarks.peers.faststream_event import OrderPlaced

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROWS = payload.events()


def publish_one(broker: NatsBroker, topic: str) -> Callable[[int], Awaitable[Any]]:
    """Give the operation that is measured: build a typed event, publish it, await the ack."""

    async def operation(number: int) -> None:
        # Its default timeout of 0.5 s fails publishes on a busy machine.
        await broker.publish(OrderPlaced(**ROWS[number % payload.VARIETY]), topic, stream=topic, timeout=30.0)

    return operation


async def declare(url: str, topic: str) -> None:
    """Create the stream; FastStream itself does so only for subscribers."""
    async with NatsBroker(url, logger=None) as broker:
        connection = await broker.connect()
        await connection.jetstream().add_stream(StreamConfig(name=topic, subjects=[topic]))


async def publish(url: str, topic: str, operations: int, callers: int, pids: dict[str, int]) -> dict[str, Any]:
    """Measure `operations` publishes with `callers` in flight."""
    async with NatsBroker(url, logger=None) as broker:
        await broker.start()
        return await worker.timed_loop(callers, operations, publish_one(broker, topic), {"publisher": os.getpid()} | pids)


async def fill(url: str, topic: str, operations: int, callers: int) -> None:
    """Publish without measuring."""
    async with NatsBroker(url, logger=None) as broker:
        await broker.start()
        await worker.closed_loop(callers, operations, publish_one(broker, topic))


if __name__ == "__main__":
    worker.main({"declare": declare, "publish": publish, "fill": fill})
