"""What is in a message's bytes that its class cannot read: protobuf puts a field of another wire type aside without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protobuf import DescFieldValueList, DescFieldValueMap, DescMessage, ScalarType
from protobuf.wkt.google.protobuf.descriptor_pb import FieldDescriptorProto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from protobuf import DescEnum, DescField

__all__ = ["unread"]

VARINT, FIXED64, LENGTH, START, END, FIXED32 = range(6)
_Type = FieldDescriptorProto.Type
_WIRE: Final = {
    _Type.DOUBLE: FIXED64,
    _Type.FIXED64: FIXED64,
    _Type.SFIXED64: FIXED64,
    _Type.FLOAT: FIXED32,
    _Type.FIXED32: FIXED32,
    _Type.SFIXED32: FIXED32,
    _Type.STRING: LENGTH,
    _Type.BYTES: LENGTH,
    _Type.MESSAGE: LENGTH,
    _Type.GROUP: START,
}
_DEEPEST: Final = 100
_MAP_VALUE: Final = 2


def unread(desc: DescMessage, content: bytes | memoryview) -> list[str]:
    """Return the fields, as `lines.count`, that the bytes hold with another wire type than the class declares.

    The bytes must have been decoded before. Fields that the class does not declare are not among them: they are kept and passed on.
    """
    return sorted(set(_unread(desc, memoryview(content), "", 0)))


def _unread(desc: DescMessage, content: memoryview, path: str, depth: int) -> Iterator[str]:
    declared = {field.number: field for field in desc.fields}
    for number, wire, part in _fields(content):
        field = declared.get(number)
        if field is None:
            continue
        if not _fits(field, wire):
            yield path + field.name
        elif wire == LENGTH and depth < _DEEPEST:
            yield from _unread_inside(field, part, path + field.name, depth)


def _unread_inside(field: DescField, part: memoryview, path: str, depth: int) -> Iterator[str]:
    """Go on inside of a message, of an element of a list, or of a map's entry."""
    value = field.value
    if isinstance(value, DescFieldValueMap):
        for number, wire, content in _fields(part):
            if number == _MAP_VALUE and isinstance(value.value, DescMessage) and wire == LENGTH:
                yield from _unread(value.value, content, f"{path}.", depth + 1)
            elif number <= _MAP_VALUE and wire != _wire_of(value.value if number == _MAP_VALUE else value.key):
                yield path
        return
    inner = value.element if isinstance(value, DescFieldValueList) else getattr(value, "message", None)
    if isinstance(inner, DescMessage):
        yield from _unread(inner, part, f"{path}.", depth + 1)


def _wire_of(value: ScalarType | DescMessage | DescEnum) -> int:
    if isinstance(value, DescMessage):
        return LENGTH
    return _WIRE.get(_Type(int(value)), VARINT) if isinstance(value, ScalarType) else VARINT


def _fits(field: DescField, wire: int) -> bool:
    wanted = _WIRE.get(field.proto.type, VARINT)
    packed = field.proto.label == FieldDescriptorProto.Label.REPEATED and wanted in {VARINT, FIXED32, FIXED64}
    return wire in {wanted, END} or (packed and wire == LENGTH) or (field.proto.type == _Type.MESSAGE and wire == START)


def _fields(content: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Walk number, wire type and, for those with a length, the content of each field; groups are passed over."""
    at, end, groups = 0, len(content), 0
    while at < end:
        tag, at = _varint(content, at)
        number, wire = tag >> 3, tag & 7
        if not groups and wire != END:
            start, length = at, 0
            if wire == LENGTH:
                length, start = _varint(content, at)
            yield number, wire, content[start : start + length]
        groups += (wire == START) - (wire == END)
        at = _after(content, at, wire)


def _after(content: memoryview, at: int, wire: int) -> int:
    if wire == VARINT:
        return _varint(content, at)[1]
    if wire == LENGTH:
        length, at = _varint(content, at)
        return at + length
    return at + {FIXED64: 8, FIXED32: 4}.get(wire, 0)


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says "more follows"
            return value, at
        shift += 7
