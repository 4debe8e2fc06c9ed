"""A process that serves one query over gRPC until its input ends; tells its address on its output."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from linkspan import App, Context, Contract, Message, Service, ServiceContract, field, query

contract = Contract("soak.orders.v1")


class GetOrder(Message):
    """Ask for an order."""

    order_id: str = field(1)


class Order(Message):
    """What is known of it."""

    order_id: str = field(1)
    status: str = field(2)


class Orders(ServiceContract):
    """One query."""

    get_order = query(GetOrder, Order)


orders = Service("orders", Orders)


@orders.handles(Orders.get_order)
async def get_order(ctx: Context, request: GetOrder) -> Order:
    return Order(order_id=request.order_id, status="placed")


async def serve(folder: str) -> None:
    app = App(orders, broker="memory://", http="127.0.0.1:0", grpc="127.0.0.1:0", data=folder)
    async with app:
        print(app.grpc_address, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
