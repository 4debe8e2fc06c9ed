"""grpcio.aio as the server of the unary query: one handler, protobuf with upb."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from benchmarks import worker
from benchmarks.peers.grpc_messages import METHOD, SERVICE, GetOrder, Order


async def get_order(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
    """Answer from memory, after reading the caller's metadata and deadline as any traced service does."""
    assert context.invocation_metadata()
    assert context.time_remaining() > 0
    return Order(order_id=request.order_id, note=request.note, cents=4_210)


class Server:
    """The server of one run."""

    def __init__(self) -> None:
        self._server: grpc.aio.Server | None = None

    async def start(self) -> dict[str, Any]:
        """Listen on a free port of the loopback interface."""
        handler = grpc.unary_unary_rpc_method_handler(
            get_order, request_deserializer=GetOrder.FromString, response_serializer=Order.SerializeToString
        )
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return {"port": port}


if __name__ == "__main__":
    worker.main({"start": Server().start})
