"""Reserved numbers and names of messages and enums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protobuf.wkt.google.protobuf.descriptor_pb import DescriptorProto

if TYPE_CHECKING:
    from protobuf.wkt.google.protobuf.descriptor_pb import EnumDescriptorProto

__all__ = ["missing", "names_reserved", "range_text", "reserved", "reserves"]

Range = tuple[int, int]
"""First and last number; both belong to it."""


def reserved(proto: DescriptorProto | EnumDescriptorProto) -> list[Range]:
    """Return the reserved ranges: descriptors of messages name the number after the last, those of enums the last."""
    past = 1 if isinstance(proto, DescriptorProto) else 0
    return [(each.start, each.end - past) for each in proto.reserved_range]


def names_reserved(proto: DescriptorProto | EnumDescriptorProto) -> set[str]:
    """Return the reserved names."""
    return set(proto.reserved_name)


def reserves(proto: DescriptorProto | EnumDescriptorProto, number: int) -> bool:
    """Tell whether a number is reserved."""
    return any(first <= number <= last for first, last in reserved(proto))


def missing(wanted: Range, kept: list[Range]) -> list[Range]:
    """Return the parts of a range that no other range covers."""
    first, last = wanted
    gaps: list[Range] = []
    for start, end in sorted(kept):
        if end < first:
            continue
        if start > last:
            break
        if start > first:
            gaps.append((first, start - 1))
        first = max(first, end + 1)
    if first <= last:
        gaps.append((first, last))
    return gaps


def range_text(part: Range) -> str:
    """Return a range for people."""
    return str(part[0]) if part[0] == part[1] else f"{part[0]} to {part[1]}"
