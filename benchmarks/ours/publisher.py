"""Linkspan as a publisher: `Client.publish` of typed events, each awaits the broker's acknowledgement."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from benchmarks import payload, worker
from benchmarks.ours.orders_v1 import OrderPlaced, contract
from linkspan import Client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROWS = payload.events()


def publish_one(client: Client) -> Callable[[int], Awaitable[Any]]:
    """Give the operation that is measured: build a typed event, publish it, await the ack."""

    async def operation(number: int) -> None:
        await client.publish(OrderPlaced(**ROWS[number % payload.VARIETY]))

    return operation


async def publish(url: str, operations: int, callers: int, pids: dict[str, int]) -> dict[str, Any]:
    """Measure `operations` publishes with `callers` in flight."""
    async with Client(url, name="orders", owns=[contract]) as client:
        return await worker.timed_loop(callers, operations, publish_one(client), {"publisher": os.getpid()} | pids)


async def fill(url: str, operations: int, callers: int) -> None:
    """Publish without measuring."""
    async with Client(url, name="orders", owns=[contract]) as client:
        await worker.closed_loop(callers, operations, publish_one(client))


if __name__ == "__main__":
    worker.main({"publish": publish, "fill": fill})
