"""connectrpc's client without Linkspan above it, over Linkspan's HTTP transport: no deadline, no trace context, no middleware."""

from __future__ import annotations

import os
from typing import Any

from connectrpc.client import ConnectClient
from pyqwest import Client

from benchmarks import payload, worker
from benchmarks.ours.bare_server import METHOD
from benchmarks.ours.orders_v1 import GetOrder
from linkspan.runtime import system
from linkspan.transport.http import HttpTransport


async def call(port: int, operations: int, callers: int, pids: dict[str, int]) -> dict[str, Any]:
    """Measure `operations` calls with `callers` in flight."""
    transport = HttpTransport(f"http://127.0.0.1:{port}", clock=system().clock)
    client = ConnectClient(f"http://127.0.0.1:{port}", accept_compression=(), send_compression=None, http_client=Client(transport))

    async def operation(number: int) -> None:
        request = GetOrder(order_id=str(number), note=payload.TEXT_160, detailed=True)
        order = await client.execute_unary(request=request, method=METHOD)
        assert order.order_id == request.order_id

    try:
        return await worker.timed_loop(callers, operations, operation, {"client": os.getpid()} | pids)
    finally:
        await client.close()
        await transport.aclose()


if __name__ == "__main__":
    worker.main({"call": call})
