"""pyqwest as the sender of JSON calls: of the clients at hand the one with the fewest header bytes."""

from __future__ import annotations

import os
from typing import Any

import pyqwest

from benchmarks import payload, worker
from benchmarks.harness import wire_bytes
from benchmarks.peers.faststream_event import OrderPlaced

ROWS = payload.events()


async def call(port: int, operations: int, callers: int) -> dict[str, Any]:
    """Measure `operations` calls, and the bytes of one: request, answer and all headers."""
    url = f"http://127.0.0.1:{port}/orders"
    headers = {"content-type": "application/json"}
    async with pyqwest.HTTPTransport() as transport:
        client = pyqwest.Client(transport)

        async def operation(number: int) -> None:
            body = OrderPlaced(**ROWS[number % payload.VARIETY]).model_dump_json().encode()
            response = await client.post(url, headers=headers, content=body)
            assert response.status == 200

        answer = await worker.timed_loop(callers, operations, operation, {"client": os.getpid()})
        passed = wire_bytes(port)
    return answer | {"extra": {"bytes": passed / (operations + operations // 8)}}


if __name__ == "__main__":
    worker.main({"call": call})
