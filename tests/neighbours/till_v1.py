"""What our service publishes."""

from __future__ import annotations

from linkspan import Contract, Event, field

contract = Contract("neighbours.till.v1")


class Charged(Event):
    """A cart was paid."""

    cart_id: str = field(1, key=True)
    cents: int = field(2)
