"""connectrpc without Linkspan as the server of the unary query: its own application on uvicorn, compression off."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectASGIApplication, Endpoint

from benchmarks import worker
from benchmarks.ours.orders_v1 import GetOrder, Order, Orders

METHOD = MethodInfo(
    name=Orders.get_order.rpc_name,
    service_name=Orders.get_order.service_name,
    input=GetOrder,
    output=Order,
    idempotency_level=IdempotencyLevel.NO_SIDE_EFFECTS,
    stream_type=StreamType.UNARY,
)


async def get_order(request: GetOrder, _ctx: Any) -> Order:
    """Answer from memory."""
    return Order(order_id=request.order_id, note=request.note, cents=4_210)


class Bare(ConnectASGIApplication[None]):
    """What connectrpc's generator would have made for one method."""

    def __init__(self) -> None:
        endpoint = Endpoint.unary(METHOD, get_order)
        super().__init__(service=None, endpoints=lambda _service: {Orders.get_order.path: endpoint}, compressions=())

    @property
    def path(self) -> str:
        """Give the prefix of the service's URLs."""
        return f"/{Orders.get_order.service_name}"


class Server:
    """The server of one run."""

    def __init__(self) -> None:
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> dict[str, Any]:
        """Listen on a free port of the loopback interface."""
        listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
        server = uvicorn.Server(uvicorn.Config(Bare(), http="httptools", lifespan="off", access_log=False, log_level="warning"))
        self._serving = asyncio.create_task(server.serve([listening]))
        return {"port": listening.getsockname()[1]}


if __name__ == "__main__":
    worker.main({"start": Server().start})
