"""A contract that nobody has used yet when a new process meets it."""

from linkspan.contract import Contract
from linkspan.message import Enum, Message, field, repeated

contract = Contract("test.pickle.v1")


class Colour(Enum):
    UNSPECIFIED = 0
    RED = 1


class Line(Message):
    sku: str = field(1)


class Order(Message):
    order_id: str = field(1, key=True)
    note: str | None = field(2, default=None)
    lines: list[Line] = repeated(3)
    colour: Colour = field(4, default=Colour.UNSPECIFIED)
