"""The bare server: our own transport with a function behind it, no service, no middleware, no context."""

from __future__ import annotations

from typing import Any

from benchmarks import worker
from benchmarks.ours.orders_v1 import GetOrder, Order, Orders
from linkspan.runtime import system
from linkspan.transport.server import DirectServer, Endpoint


async def get_order(request: GetOrder, _inbound: Any) -> Order:
    """Answer from memory."""
    return Order(order_id=request.order_id, note=request.note, cents=4_210)


class Server:
    """The server of one run."""

    async def start(self) -> dict[str, Any]:
        """Listen on a free port of the loopback interface."""
        server = DirectServer([Endpoint(Orders.get_order, get_order)], runtime=system())
        await server.start()
        return {"port": int(server.address.rpartition(":")[2])}


if __name__ == "__main__":
    worker.main({"start": Server().start})
