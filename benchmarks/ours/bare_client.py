"""The bare call: our own channel without anything above it, no middleware, no key, no trace context."""

from __future__ import annotations

import os
from typing import Any

from benchmarks import payload, worker
from benchmarks.ours.orders_v1 import GetOrder, Orders
from linkspan.runtime import system
from linkspan.transport.connect import ConnectChannel


async def call(port: int, operations: int, callers: int, pids: dict[str, int]) -> dict[str, Any]:
    """Measure `operations` calls with `callers` in flight."""
    channel = ConnectChannel(f"http://127.0.0.1:{port}", runtime=system())

    async def operation(number: int) -> None:
        request = GetOrder(order_id=str(number), note=payload.TEXT_160, detailed=True)
        order = await channel.unary(Orders.get_order, request, headers={}, timeout=60.0)
        assert order.order_id == request.order_id

    try:
        return await worker.timed_loop(callers, operations, operation, {"client": os.getpid()} | pids)
    finally:
        await channel.aclose()


if __name__ == "__main__":
    worker.main({"call": call})
