"""grpcio.aio as the caller of the unary query: timeout and two metadata entries on every call."""

from __future__ import annotations

import os
from typing import Any

import grpc
import grpc.aio

from benchmarks import payload, worker
from benchmarks.peers.grpc_messages import METHOD, SERVICE, GetOrder, Order

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736"


async def call(port: int, operations: int, callers: int, pids: dict[str, int]) -> dict[str, Any]:
    """Measure `operations` calls with `callers` in flight."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        get_order = channel.unary_unary(
            f"/{SERVICE}/{METHOD}", request_serializer=GetOrder.SerializeToString, response_deserializer=Order.FromString
        )

        async def operation(number: int) -> None:
            request = GetOrder(order_id=str(number), note=payload.TEXT_160, detailed=True)
            metadata = (("traceparent", f"{TRACE}-{number + 1:016x}-01"), ("idempotency-key", f"{number:032x}"))
            order = await get_order(request, timeout=5.0, metadata=metadata)
            assert order.order_id == request.order_id

        return await worker.timed_loop(callers, operations, operation, {"client": os.getpid()} | pids)


if __name__ == "__main__":
    worker.main({"call": call})
