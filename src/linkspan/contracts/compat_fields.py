"""Rules about fields, with the names and the meaning they have in buf (category WIRE_JSON)."""

from __future__ import annotations

import math
from ctypes import c_float
from typing import TYPE_CHECKING, Final

from protobuf.wkt.google.protobuf.descriptor_pb import FieldDescriptorProto

from linkspan.contracts.compat_rule import Change, Rule, field_pairs, message_pairs
from linkspan.contracts.ranges import names_reserved, reserves

if TYPE_CHECKING:
    from collections.abc import Iterator

    from linkspan.contracts.snapshot import FieldShape, Snapshot

__all__ = ["FIELD_RULES"]

_Type = FieldDescriptorProto.Type
_NAMED: Final = (_Type.ENUM, _Type.MESSAGE, _Type.GROUP)

# What reads the other's bytes and its JSON: 64-bit numbers are text in JSON, zigzag and fixed widths have their own bytes.
_ALIKE: Final = (
    {_Type.INT32, _Type.UINT32},
    {_Type.INT64, _Type.UINT64},
    {_Type.FIXED32, _Type.SFIXED32},
    {_Type.FIXED64, _Type.SFIXED64},
)
Value = str | bytes | float
_RESERVE: Final = "Keep the field and mark it deprecated; to remove it after all, reserve its number and its name for ever."


def _name_of(kind: _Type) -> str:
    return kind.name.lower()


def _type_text(field: FieldShape) -> str:
    return field.proto.type_name.removeprefix(".") if field.type in _NAMED else _name_of(field.type)


# --- removed ---------------------------------------------------------------------------------------


def _gone(before: Snapshot, after: Snapshot) -> Iterator[tuple[FieldShape, str, FieldDescriptorProto]]:
    for old, new in message_pairs(before, after):
        for number, field in old.fields.items():
            if number not in new.fields:
                yield field, new.full_name, field.proto


def _number_not_reserved(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for field, message, proto in _gone(before, after):
        if not reserves(after.messages[message].proto, proto.number):
            yield Change(field.full_name, f"field {proto.number}", f"gone, and {proto.number} is not reserved", message)


def _name_not_reserved(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for field, message, proto in _gone(before, after):
        if proto.name not in names_reserved(after.messages[message].proto):
            yield Change(field.full_name, f"field '{proto.name}'", f"gone, and '{proto.name}' is not reserved", message)


def _required(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in message_pairs(before, after):
        was = {number for number, field in old.fields.items() if field.proto.label == FieldDescriptorProto.Label.REQUIRED}
        now = {number for number, field in new.fields.items() if field.proto.label == FieldDescriptorProto.Label.REQUIRED}
        for number in sorted(was - now):
            yield Change(old.fields[number].full_name, "required", "not required any more", new.full_name)
        for number in sorted(now - was):
            yield Change(new.fields[number].full_name, "not required", "required", new.fields[number].full_name)


# --- changed ---------------------------------------------------------------------------------------


def _name(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in field_pairs(before, after):
        was, now = (old.full_name, new.full_name) if old.proto.extendee else (old.proto.name, new.proto.name)
        if was != now:
            yield Change(old.full_name, f"'{was}'", f"'{now}'", new.full_name)


def _json_name(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in field_pairs(before, after):
        if not old.proto.extendee and old.proto.json_name != new.proto.json_name:
            yield Change(old.full_name, f"'{old.proto.json_name}' in JSON", f"'{new.proto.json_name}' in JSON", new.full_name)


def _oneof(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in field_pairs(before, after):
        if not old.proto.extendee and old.oneof != new.oneof:
            yield Change(old.full_name, _in_oneof(old), _in_oneof(new), new.full_name)


def _in_oneof(field: FieldShape) -> str:
    return f"in oneof '{field.oneof}'" if field.oneof else "in no oneof"


def _cardinality(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in field_pairs(before, after):
        if old.cardinality != new.cardinality and not (old.in_map_entry and new.in_map_entry):
            yield Change(old.full_name, old.cardinality, new.cardinality, new.full_name)


def _type(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in field_pairs(before, after):
        if not _same_type(old, new, before, after):
            yield Change(old.full_name, _type_text(old), _type_text(new), new.full_name)


def _same_type(old: FieldShape, new: FieldShape, before: Snapshot, after: Snapshot) -> bool:
    if old.type != new.type:
        return any(old.type in alike and new.type in alike for alike in _ALIKE)
    if old.type not in _NAMED or old.proto.type_name == new.proto.type_name:
        return True
    return old.type == _Type.ENUM and _same_enum(old.proto.type_name, new.proto.type_name, before, after)


def _same_enum(was: str, now: str, before: Snapshot, after: Snapshot) -> bool:
    """Tell whether an enum has only moved: the same short name, and all old values are there."""
    old, new = before.enums.get(was.removeprefix(".")), after.enums.get(now.removeprefix("."))
    if old is None or new is None or old.proto.name != new.proto.name:
        return False
    return old.numbers.items() <= new.numbers.items()


# --- defaults --------------------------------------------------------------------------------------


def _default(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in field_pairs(before, after):
        if not (_may_have_default(old) and _may_have_default(new)):
            continue
        was, now = _default_of(old, before), _default_of(new, after)
        if (was or now) and not _same_value(was, now, single=_Type.FLOAT in {old.type, new.type}):
            yield Change(old.full_name, f"default {was!r}", f"default {now!r}", new.full_name)


def _may_have_default(field: FieldShape) -> bool:
    return field.cardinality in {"single", "required"} and field.proto.type not in {_Type.MESSAGE, _Type.GROUP}


def _default_of(field: FieldShape, version: Snapshot) -> Value:
    """Return what an absent field reads as; all numbers, booleans and enums as numbers, as their bytes are."""
    text = field.proto.default_value if field.proto.has_field("default_value") else None
    match field.proto.type:
        case _Type.STRING:
            return text or ""
        case _Type.BYTES:
            return (text or "").encode("latin-1", "replace").decode("unicode_escape").encode("latin-1", "replace")
        case _Type.BOOL:
            return int(text == "true")
        case _Type.ENUM:
            return _enum_default(field, text, version)
        case _Type.DOUBLE | _Type.FLOAT:
            return float(text or 0)
        case _:
            return int(text or 0)


def _enum_default(field: FieldShape, text: str | None, version: Snapshot) -> int:
    enum = version.enums.get(field.proto.type_name.removeprefix("."))
    if enum is None or not enum.proto.value:
        return 0
    return enum.numbers.get(text, 0) if text is not None else enum.proto.value[0].number


def _same_value(was: Value, now: Value, *, single: bool) -> bool:
    if isinstance(was, float) and isinstance(now, float):
        if single:  # what a 32-bit float cannot tell apart is the same
            was, now = c_float(was).value, c_float(now).value
        return was == now or (math.isnan(was) and math.isnan(now))
    if isinstance(was, str | bytes) and isinstance(now, str | bytes):
        return _as_bytes(was) == _as_bytes(now)
    return was == now


def _as_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


FIELD_RULES: Final = (
    Rule(
        "FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED",
        "WIRE_JSON",
        "A removed field reserves its number, so that nobody reads old bytes as something else.",
        _RESERVE,
        _number_not_reserved,
    ),
    Rule(
        "FIELD_NO_DELETE_UNLESS_NAME_RESERVED",
        "WIRE_JSON",
        "A removed field reserves its name, so that nobody reads old JSON as something else.",
        _RESERVE,
        _name_not_reserved,
    ),
    Rule(
        "FIELD_SAME_NAME",
        "WIRE_JSON",
        "A field keeps its name, which JSON carries.",
        "Keep the old name; for a better one add a field with a new number and mark this one deprecated.",
        _name,
    ),
    Rule(
        "FIELD_SAME_JSON_NAME",
        "WIRE_JSON",
        "A field keeps its name in JSON.",
        "Keep the old name in JSON.",
        _json_name,
    ),
    Rule(
        "FIELD_WIRE_JSON_COMPATIBLE_TYPE",
        "WIRE_JSON",
        "A field keeps a type whose bytes and JSON the old one reads.",
        "Keep the type; add a field of the new type with a new number, and mark this one deprecated.",
        _type,
    ),
    Rule(
        "FIELD_WIRE_JSON_COMPATIBLE_CARDINALITY",
        "WIRE_JSON",
        "A field stays single, required, repeated or a map.",
        "Keep it as it was; add a field with a new number beside it.",
        _cardinality,
    ),
    Rule(
        "FIELD_SAME_ONEOF",
        "WIRE_JSON",
        "A field stays in its oneof, or outside of any.",
        "Leave it where it was; add a field with a new number to the oneof.",
        _oneof,
    ),
    Rule(
        "FIELD_SAME_DEFAULT",
        "WIRE_JSON",
        "What an absent field reads as stays the same.",
        "Keep the default; absent values that are stored already would read as another value.",
        _default,
    ),
    Rule(
        "MESSAGE_SAME_REQUIRED_FIELDS",
        "WIRE_JSON",
        "No field becomes required, and none stops to be.",
        "Leave `required` as it was: one side always has to send it, or refuses what has it not.",
        _required,
    ),
)
