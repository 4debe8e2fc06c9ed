"""The contract that the targets speak: a message with a field of every shape."""

from __future__ import annotations

from typing import Literal

from linkspan import (
    Contract,
    Duration,
    Enum,
    Float32,
    Int32,
    Message,
    Oneof,
    ServiceContract,
    SInt64,
    Timestamp,
    field,
    mapping,
    oneof,
    query,
    repeated,
)

contract = Contract("fuzz.v1")


class Colour(Enum):
    """An enum."""

    UNSPECIFIED = 0
    RED = 1


class Leaf(Message):
    """A message that holds others of its kind."""

    name: str = field(1)
    below: Leaf | None = field(2, default=None)


class Everything(Message):
    """A field of every shape."""

    text: str = field(1, key=True)
    data: bytes = field(2)
    number: int = field(3)
    small: Int32 = field(4)
    signed: SInt64 = field(5)
    ratio: float = field(6)
    single: Float32 = field(7)
    flag: bool = field(8)
    colour: Colour = field(9)
    maybe: str | None = field(10, default=None)
    at: Timestamp | None = field(11, default=None)
    took: Duration | None = field(12, default=None)
    leaf: Leaf | None = field(13, default=None)
    leaves: list[Leaf] = repeated(14)
    names: dict[str, int] = mapping(15)
    numbers: list[int] = repeated(16)
    how: Oneof[Literal["word"], str] | Oneof[Literal["tree"], Leaf] | None = oneof(word=17, tree=18)


class Echo(ServiceContract):
    """Gives back what it is given."""

    echo = query(Everything, Everything)
