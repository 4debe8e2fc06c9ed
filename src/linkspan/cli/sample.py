"""Example requests in JSON, made from the declaration of a message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from protobuf import DescEnum, DescMessage, ScalarType

if TYPE_CHECKING:
    from protobuf import DescField, Message

__all__ = ["sample_json"]

_DEEPEST = 2
_SCALARS: dict[Any, Any] = {
    ScalarType.STRING: "7",
    ScalarType.BYTES: "Nw==",
    ScalarType.BOOL: True,
    ScalarType.DOUBLE: 7.5,
    ScalarType.FLOAT: 7.5,
}
_KNOWN = {
    "google.protobuf.Timestamp": "2026-01-31T12:00:00Z",
    "google.protobuf.Duration": "7s",
}


def sample_json(cls: type[Message[Any]]) -> str:
    """Return a request that has a value in each field, on one line."""
    return json.dumps(_message(cls.desc(), 0))


def _message(desc: DescMessage, depth: int) -> Any:
    if desc.type_name in _KNOWN:
        return _KNOWN[desc.type_name]
    if depth > _DEEPEST or desc.type_name.startswith("google.protobuf."):
        return {}
    return {member.json_name: _field(member, depth) for member in desc.fields if not _is_further_kind(member)}


def _is_further_kind(field: DescField) -> bool:
    """Tell whether a field is one of several kinds, and not the first of them."""
    oneof: Any = getattr(field.value, "oneof", None)
    return oneof is not None and oneof.fields[0].number != field.number


def _field(field: DescField, depth: int) -> Any:
    value: Any = field.value
    if hasattr(value, "element"):
        return [_value(value.element, depth)]
    if hasattr(value, "key"):
        return {"7": _value(value.value, depth)} if value.key is not ScalarType.BOOL else {"true": _value(value.value, depth)}
    return _value(getattr(value, "scalar", None) or getattr(value, "message", None) or value.enum, depth)


def _value(kind: Any, depth: int) -> Any:
    if isinstance(kind, DescMessage):
        return _message(kind, depth + 1)
    if isinstance(kind, DescEnum):
        return kind.values[min(1, len(kind.values) - 1)].name
    return _SCALARS.get(kind, 7)
