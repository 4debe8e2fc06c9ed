"""A shop on FastAPI and SQLAlchemy, before Linkspan."""

from __future__ import annotations

import os

from fastapi import FastAPI, HTTPException
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


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
