"""Linkspan as the caller of the unary query: default middleware, so a deadline, a key and a trace context on every call."""

from __future__ import annotations

import os
from typing import Any

from benchmarks import payload, worker
from benchmarks.ours.orders_v1 import GetOrder, Orders
from linkspan import Client


async def call(port: int, operations: int, callers: int, pids: dict[str, int]) -> dict[str, Any]:
    """Measure `operations` calls with `callers` in flight."""
    async with Client(addresses=f"http://127.0.0.1:{port}", name="bench") as client:

        async def operation(number: int) -> None:
            request = GetOrder(order_id=str(number), note=payload.TEXT_160, detailed=True)
            order = await client.call(Orders.get_order, request, timeout=5.0)
            assert order.order_id == request.order_id

        return await worker.timed_loop(callers, operations, operation, {"client": os.getpid()} | pids)


if __name__ == "__main__":
    worker.main({"call": call})
