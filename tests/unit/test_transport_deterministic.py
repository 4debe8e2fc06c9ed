"""Equal messages give the same bytes, however they were made, and stay as they are."""

from __future__ import annotations

from typing import Any, Literal

from hypothesis import given, strategies as some
from protobuf.wkt import Struct, Value

from linkspan.contract import Contract
from linkspan.message import Message, Oneof, field, mapping, oneof, repeated
from linkspan.operation import ServiceContract, query
from linkspan.transport.deterministic import write_deterministic

contract = Contract("test.deterministic.v1")


class Tags(Message):
    texts: dict[str, str] = mapping(1)
    numbers: dict[int, str] = mapping(2)
    flags: dict[bool, str] = mapping(3)


class Order(Message):
    by_name: dict[str, Tags] = mapping(1)
    listed: list[Tags] = repeated(2)
    one: Tags | None = field(3, default=None)
    how: Oneof[Literal["tags"], Tags] | Oneof[Literal["text"], str] | None = oneof(tags=4, text=5)


class Chain(Message):
    text: str = field(1)
    inner: list[Chain] = repeated(2)


class Orders(ServiceContract):
    get = query(Order, Chain)


InTags = Oneof[Literal["tags"], Tags]


def order(texts: dict[str, str], numbers: dict[int, str], *, turned: bool) -> Order:
    def turn(entries: dict[Any, str]) -> dict[Any, str]:
        return dict(reversed(entries.items())) if turned else dict(entries)

    def tags() -> Tags:
        return Tags(texts=turn(texts), numbers=turn(numbers), flags=turn({True: "y", False: "n"}))

    names = ["b", "a", "c"][:: -1 if turned else 1]
    return Order(by_name={name: tags() for name in names}, listed=[tags(), Tags()], one=tags(), how=InTags("tags", tags()))


@given(some.dictionaries(some.text(), some.text()), some.dictionaries(some.integers(-(2**63), 2**63 - 1), some.text()))
def test_order_of_entries_does_not_matter(texts: dict[str, str], numbers: dict[int, str]) -> None:
    one, other = order(texts, numbers, turned=False), order(texts, numbers, turned=True)
    before = one.to_binary()
    assert write_deterministic(one) == write_deterministic(other)
    assert Order.from_binary(write_deterministic(one)) == one == other
    assert one.to_binary() == before  # the caller's message is left alone


def test_structs_are_ordered_too() -> None:
    first, second = Value.from_python({"b": [{"y": 1, "x": 2}], "a": None}), Value.from_python({"a": None, "b": [{"x": 2, "y": 1}]})
    assert write_deterministic(first) == write_deterministic(second)
    assert Struct.from_binary(b"") == Struct()


def test_messages_without_maps_are_written_as_ever() -> None:
    chain = Chain(text="a", inner=[Chain(text="b", inner=[Chain()])])
    assert write_deterministic(chain) == chain.to_binary()
