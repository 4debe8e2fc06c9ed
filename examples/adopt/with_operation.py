"""A shop on FastAPI and SQLAlchemy, with one operation."""

from __future__ import annotations

import os

from fastapi import FastAPI, HTTPException
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from linkspan import App, Context, Contract, Message, Service, ServiceContract, field, query

contract = Contract("shop.lookup.v1")


class Order(Message):
    order_id: str = field(1)
    status: str = field(2)


class Orders(ServiceContract):
    get_order = query(Order, Order)


class Base(DeclarativeBase):
    pass


class OrderRow(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]


engine = create_engine(os.environ.get("SHOP_DB", "sqlite:///shop.db"))
Base.metadata.create_all(engine)
api = FastAPI()


@api.post("/orders/{order_id}")
def place_order(order_id: str) -> dict[str, str]:
    with Session(engine) as session, session.begin():
        session.add(OrderRow(id=order_id, status="placed"))
    return {"order_id": order_id}


@api.get("/orders/{order_id}")
def show_order(order_id: str) -> dict[str, str]:
    with Session(engine) as session:
        row = session.get(OrderRow, order_id)
    if row is None:
        raise HTTPException(404)
    return {"order_id": row.id, "status": row.status}


orders = Service("orders", Orders)


@orders.handles(Orders.get_order)
async def get_order(ctx: Context, request: Order) -> Order:
    return Order(**await run_in_threadpool(show_order, request.order_id))


App(orders).mount_on(api, "/rpc")
