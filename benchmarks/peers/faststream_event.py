"""The event as FastStream users write it: a pydantic model, JSON on the wire."""

from __future__ import annotations

from pydantic import BaseModel


class OrderPlaced(BaseModel):
    """An order is stored."""

    order_id: str
    customer_id: str
    country: str
    cents: int
    quantity: int
    placed_at: int
    skus: list[str]
    note: str
