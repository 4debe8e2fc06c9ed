"""What a class cannot read of bytes that another version of it wrote, field by field."""

from __future__ import annotations

from typing import Any

import pytest

from linkspan.contracts.wire import unread
from tests.unit.declaring import declare

WRITTEN = declare("""
class Line(Message):
    sku: str = field(1)
    count: Int32 = field(2)
class Order(Message):
    number: int = field(1)
    text: str = field(2)
    price: float = field(3)
    ratio: Float32 = field(4)
    line: Line | None = field(5, default=None)
    lines: list[Line] = repeated(6)
    by_sku: dict[str, Line] = mapping(7)
    counts: dict[str, int] = mapping(8)
    tags: list[str] = repeated(9)
    many: list[int] = repeated(10)
    gone: str = field(11)
""")

FULL: dict[str, Any] = {
    "number": 7,
    "text": "x",
    "price": 1.5,
    "ratio": 0.5,
    "line": WRITTEN.Line(sku="a", count=1),
    "lines": [WRITTEN.Line(sku="b", count=2)],
    "by_sku": {"c": WRITTEN.Line(sku="c", count=3)},
    "counts": {"d": 4},
    "tags": ["t"],
    "many": [1, 2, 300],
    "gone": "g",
}

LINE = ("sku: str = field(1)", "count: Int32 = field(2)")


def read_by(*fields: str, written: dict[str, Any] = FULL, line: tuple[str, ...] = LINE) -> list[str]:
    body = "\n    ".join(("class Line(Message):", *line)) + "\n" + "\n    ".join(("class Order(Message):", *fields))
    content = WRITTEN.Order(**written).to_binary()
    cls = declare(body).Order
    cls.from_binary(content)
    return unread(cls.desc(), content)


def test_same_class_reads_everything() -> None:
    assert unread(WRITTEN.Order.desc(), WRITTEN.Order(**FULL).to_binary()) == []


@pytest.mark.parametrize(
    ("field", "lost"),
    [
        ("number: str = field(1)", ["number"]),
        ("number: UInt64 = field(1)", []),
        ("number: Fixed64 = field(1)", ["number"]),
        ("text: int = field(2)", ["text"]),
        ("text: bytes = field(2)", []),
        ("price: Float32 = field(3)", ["price"]),
        ("price: SFixed64 = field(3)", []),
        ("ratio: float = field(4)", ["ratio"]),
        ("line: int = field(5)", ["line"]),
        ("tags: int = field(9)", ["tags"]),
        ("many: int = field(10)", ["many"]),
        ("other: str = field(12)", []),
    ],
)
def test_field_of_another_wire_type_is_named(field: str, lost: list[str]) -> None:
    name = field.partition(":")[0]
    assert read_by(field, written={name: FULL[name]} if name in FULL else FULL) == lost


def test_fields_of_nested_messages_are_named_with_their_path() -> None:
    fields = ("line: Line | None = field(5, default=None)", "lines: list[Line] = repeated(6)", "by_sku: dict[str, Line] = mapping(7)")
    assert read_by(*fields, line=("sku: str = field(1)", "count: str = field(2)")) == ["by_sku.count", "line.count", "lines.count"]


def test_keys_and_values_of_maps_are_looked_at() -> None:
    assert read_by("counts: dict[str, float] = mapping(8)", written={"counts": {"d": 4}}) == ["counts"]
    assert read_by("counts: dict[str, UInt32] = mapping(8)", written={"counts": {"d": 4}}) == []
