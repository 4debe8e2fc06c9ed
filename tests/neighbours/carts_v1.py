"""What the neighbours publish: the contract of a program in another language."""

from __future__ import annotations

from linkspan import Contract, Event, field

contract = Contract("neighbours.carts.v1")


class CartFilled(Event):
    """A cart was filled."""

    cart_id: str = field(1, key=True, min_len=1)
    cents: int = field(2, gt=0)
    note: str = field(3, max_len=20, pattern="^[A-Za-z ]*$")
