"""An app that tests of the command line copy into a folder of their own and run there: `linkspan run cli_orders:app`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from linkspan import App, Code, Context, Contract, Error, Event, Message, Service, ServiceContract, command, field, query

contract = Contract("cli.orders.v1")


class PlaceOrder(Message):
    order_id: str = field(1, key=True)
    number: int = field(2)
    pause: int = field(3)
    note: str = field(4, pii=True)


class GetOrder(Message):
    order_id: str = field(1)


class Order(Message):
    order_id: str = field(1)


class OrderPlaced(Event):
    order_id: str = field(1, key=True)
    number: int = field(2)
    pause: int = field(3)
    note: str = field(4, pii=True)


class Orders(ServiceContract):
    place_order = command(PlaceOrder, Order)
    get_order = query(GetOrder, Order)


orders = Service("orders", Orders, migrations=["create table placed (order_id text, number integer)"])
mail = Service("mail", migrations=["create table thanks (order_id text, number integer)"])


def noted(what: str, order_id: str, number: int) -> None:
    """Keep each run of a handler in a file, which no rollback takes back."""
    with Path("runs.txt").open("a", encoding="utf-8") as file:
        file.write(f"{what} {order_id} {number}\n")


def is_mended() -> bool:
    """Tell whether somebody put the file there that makes bad orders good."""
    return Path("mended").exists()


@orders.handles(Orders.place_order)
async def place_order(ctx: Context, request: PlaceOrder) -> Order:
    noted("place", request.order_id, request.number)
    await asyncio.sleep(request.pause / 1000)
    if request.order_id == "broken":
        raise RuntimeError(f"cannot place {request.note}")
    await ctx.call(Orders.get_order, GetOrder(order_id=request.order_id))
    ctx.tx.record("insert into placed values (?, ?)", request.order_id, request.number)
    await ctx.publish(OrderPlaced(order_id=request.order_id, number=request.number, pause=request.pause, note=request.note))
    return Order(order_id=request.order_id)


@orders.handles(Orders.get_order)
async def get_order(ctx: Context, request: GetOrder) -> Order:
    return Order(order_id=request.order_id)


@mail.on(OrderPlaced)
async def thank(ctx: Context, event: OrderPlaced) -> None:
    noted("thank", event.order_id, event.number)
    await asyncio.sleep(event.pause / 1000)
    await ctx.call(Orders.get_order, GetOrder(order_id=event.order_id))
    if event.order_id.startswith("bug"):
        raise RuntimeError(f"cannot thank {event.note}")
    if event.order_id.startswith("bad") and event.number == 1 and not is_mended():
        raise Error(Code.FAILED_PRECONDITION, "There is no address: ask for one.")
    ctx.tx.record("insert into thanks values (?, ?)", event.order_id, event.number)


app = App(orders, mail)
nothing = "no app"
