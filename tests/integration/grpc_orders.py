"""A gRPC server of ours and a grpcio server that is not, over the contract of the direct path's tests."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import grpc

from linkspan.transport.grpc_channel import GrpcChannel
from linkspan.transport.grpc_server import GrpcServer
from tests.integration.direct_orders import PATH, RUNTIME, GetOrder, Order, Orders, Shop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from linkspan.errors import Error


@contextlib.asynccontextmanager
async def grpc_serving(**options: Any) -> AsyncIterator[tuple[Shop, GrpcServer]]:
    shop = Shop()
    server = GrpcServer(shop.endpoints, runtime=RUNTIME, **options)
    await server.start()
    try:
        yield shop, server
    finally:
        await server.drain(0.5)


@contextlib.asynccontextmanager
async def foreign_client(server: GrpcServer, **options: Any) -> AsyncIterator[Any]:
    """Give a grpcio client: `get(order_id, timeout=..., metadata=...)`."""
    async with grpc.aio.insecure_channel(server.address.removeprefix("grpc://"), **options) as channel:
        call: Any = channel.unary_unary(PATH, request_serializer=GetOrder.to_binary, response_deserializer=Order.from_binary)

        def get(order_id: str = "7", **more: Any) -> Any:
            return call(GetOrder(order_id=order_id), **more)

        get.channel = channel  # type: ignore[attr-defined]
        yield get


class ForeignShop:
    """A grpcio server, as another team would write it: what it saw, and what the order id makes it do."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, Any]] = []
        self.left: list[float] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def get_order(self, request: GetOrder, context: Any) -> Any:
        self.metadata.append(dict(context.invocation_metadata()))
        self.left.append(context.time_remaining())
        if request.order_id == "wait":
            self.started.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if request.order_id == "garbled":
            await context.abort(grpc.StatusCode.ABORTED, "why", (("grpc-status-details-bin", b"\xff\xff"),))
        if request.order_id in grpc.StatusCode.__members__:
            await context.abort(grpc.StatusCode[request.order_id], "why" if request.order_id != "ABORTED" else "")
        return Order(order_id=request.order_id, quantity=3)


@contextlib.asynccontextmanager
async def foreign_server() -> AsyncIterator[tuple[ForeignShop, str]]:
    shop = ForeignShop()
    handler = grpc.unary_unary_rpc_method_handler(
        shop.get_order,  # type: ignore[arg-type]  # the stub knows synchronous handlers only
        request_deserializer=GetOrder.from_binary,
        response_serializer=Order.to_binary,
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.direct.v1.Orders", {"GetOrder": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield shop, f"grpc://127.0.0.1:{port}"
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def grpc_channel(address: str, **options: Any) -> AsyncIterator[GrpcChannel]:
    channel = GrpcChannel(address, runtime=RUNTIME, **options)
    try:
        yield channel
    finally:
        await channel.aclose()


async def ask(channel: GrpcChannel, order_id: str = "7", *, timeout: float = 5.0, **headers: str) -> Any:
    return await channel.unary(Orders.get_order, GetOrder(order_id=order_id), headers=headers, timeout=timeout)


async def refusal(channel: GrpcChannel, order_id: str = "7", **options: Any) -> Error:
    from linkspan.errors import Error

    try:
        answer = await ask(channel, order_id, **options)
    except Error as error:
        return error
    raise AssertionError(answer)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
