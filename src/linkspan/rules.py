"""Field rules: what may stand in a field, written as the `buf.validate` options of protovalidate, which Go, TypeScript, Java enforce too.

The names are protovalidate's own (https://protovalidate.com/reference/rules/standard_rules/), with `in_` for `in`.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast

from protobuf import Oneof
from protobuf.wkt import Duration, Timestamp
from protobuf.wkt.google.protobuf.descriptor_pb import FieldDescriptorProto, FieldOptions, OneofDescriptorProto, OneofOptions

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from protobuf import DescFile

__all__ = ["ListRules", "MapRules", "Rules", "has_expression", "require_oneof", "schema", "write_rules"]


class Rules(TypedDict, total=False):
    """Rules of one value. `required` refuses absent (and, without `| None`, zero) values; `ignore_if_zero` lets zero pass the others."""

    required: bool
    ignore_if_zero: bool
    cel: str
    const: Any
    gt: float | datetime | timedelta
    gte: float | datetime | timedelta
    lt: float | datetime | timedelta
    lte: float | datetime | timedelta
    gt_now: bool
    lt_now: bool
    within: timedelta
    finite: bool
    in_: Sequence[Any]
    not_in: Sequence[Any]
    defined_only: bool
    len: int
    min_len: int
    max_len: int
    min_bytes: int
    max_bytes: int
    pattern: str
    prefix: str | bytes
    suffix: str | bytes
    contains: str | bytes
    not_contains: str
    email: bool
    hostname: bool
    host_and_port: bool
    address: bool
    ip: bool
    ipv4: bool
    ipv6: bool
    uri: bool
    uri_ref: bool
    uuid: bool
    tuuid: bool
    ulid: bool


class ListRules(TypedDict, total=False):
    """Rules of a list: how many items (`required`: at least one), whether all differ, and what holds for each of them."""

    required: bool
    ignore_if_zero: bool
    cel: str
    min_items: int
    max_items: int
    unique: bool
    items: Rules


class MapRules(TypedDict, total=False):
    """Rules of a map: how many pairs, and what holds for each key and each value."""

    required: bool
    ignore_if_zero: bool
    cel: str
    min_pairs: int
    max_pairs: int
    keys: Rules
    values: Rules


_ANY_TYPE: Final = ("required", "ignore_if_zero", "cel")
_ORDERED: Final = (("gt", "lt"), ("gt", "lte"), ("gte", "lt"), ("gte", "lte"))
_SIZED: Final = (("min_len", "max_len"), ("min_bytes", "max_bytes"), ("min_items", "max_items"), ("min_pairs", "max_pairs"))
_KNOWN_TYPES: Final = {".google.protobuf.Timestamp": "timestamp", ".google.protobuf.Duration": "duration"}
_FLAGS: Final = frozenset(name for name, kind in Rules.__annotations__.items() if "bool" in str(kind)) | {"unique"}


def schema() -> Any:
    """Return protovalidate's own module of rules, which is `buf/validate/validate.proto`. Raises `SetupError` where it is missing."""
    try:
        from protovalidate import ViolationsPb  # noqa: PLC0415 - an extra, and only where there are rules
    except ImportError as error:
        raise SetupError("Field rules need the package protovalidate: install linkspan[protovalidate].") from error
    return sys.modules[ViolationsPb.__module__]


def has_expression(rules: Mapping[str, Any]) -> bool:
    """Tell whether there is a text that only its compilation can refuse."""
    inner = (rules[name] for name in ("items", "keys", "values") if name in rules)
    return "pattern" in rules or "cel" in rules or any(map(has_expression, inner))


def write_rules(
    built: FieldDescriptorProto, rules: Mapping[str, Any], where: str, pair: Sequence[FieldDescriptorProto] = ()
) -> tuple[str, DescFile]:
    """Put the rules into a field's options; `pair` is key and value of a map. Returns the file that they come from, and its name.

    Raises:
        SetupError: A rule that the type does not know, that nothing fulfils, or whose value is of another type.
    """
    known = schema()
    kind = "map" if pair else "repeated" if built.label == FieldDescriptorProto.Label.REPEATED else _kind(built)
    written = _rules(known, kind, rules, where, (built, *pair))
    try:
        written.to_binary()
    except Exception as error:
        raise SetupError(f"Field '{where}' has a rule with a value of another type ({error}): give one that the field can hold.") from error
    if built.options is None:
        built.options = FieldOptions()
    built.options[known.ext_field] = written
    return known.desc().name, known.desc()


def require_oneof(built: OneofDescriptorProto) -> tuple[str, DescFile]:
    """Refuse messages in which no case of a oneof is set."""
    known = schema()
    built.options = OneofOptions()
    built.options[known.ext_oneof] = known.OneofRules(required=True)
    return known.desc().name, known.desc()


def _kind(built: FieldDescriptorProto) -> str:
    if built.type == FieldDescriptorProto.Type.MESSAGE:
        return _KNOWN_TYPES.get(built.type_name, "")
    return built.type.name.lower()


def _rules(known: Any, kind: str, rules: Mapping[str, Any], where: str, fields: Sequence[FieldDescriptorProto]) -> Any:
    written: Any = known.FieldRules()
    if rules.get("required"):
        written.required = True
    if rules.get("ignore_if_zero"):
        written.ignore = known.Ignore.IF_ZERO_VALUE
    if "cel" in rules:
        written.cel_expression = [rules["cel"]]
    rest = {name: value for name, value in rules.items() if name not in _ANY_TYPE}
    if not rest:
        return written
    cls: Any = _class(known, kind)
    takes = {} if cls is None else {field.local_name: field for field in cls.desc().fields}
    for name in rest:
        if name not in takes:
            allowed = ", ".join(sorted({*_ANY_TYPE, *(set(takes) & _NAMES)}))
            raise SetupError(f"Field '{where}' cannot have the rule '{name}': its type takes {allowed}.")
    _check_ranges(rest, where)
    of_type: Any = cls() if cls is not None else None
    for name, value in rest.items():
        _set(of_type, takes[name], _value(known, name, value, where, fields), where)
    written.type = Oneof(kind, of_type)
    return written


_NAMES: Final = frozenset((*Rules.__annotations__, *ListRules.__annotations__, *MapRules.__annotations__))


def _class(known: Any, kind: str) -> Any:
    wanted = f"{kind}rules"
    return next((getattr(known, name) for name in dir(known) if kind and name.lower() == wanted), None)


def _set(rules: Any, field: Any, value: Any, where: str) -> None:
    group = getattr(field.value, "oneof", None)
    if group is None:
        setattr(rules, field.local_name, value)
        return
    before = getattr(rules, group.local_name)
    if before is not None:
        raise SetupError(f"Field '{where}' has the rules '{before.field}' and '{field.local_name}': keep one.")
    setattr(rules, group.local_name, Oneof(field.local_name, value))


def _value(known: Any, name: str, value: Any, where: str, fields: Sequence[FieldDescriptorProto]) -> Any:
    if name in _FLAGS:
        if value is not True:
            raise SetupError(f"Field '{where}' has {name}={value!r}: write {name}=True, or leave it out.")
        return True
    if name in ("items", "keys", "values"):
        inner = {"items": 0, "keys": 1, "values": 2}[name]
        return _rules(known, _kind(fields[inner]), value, f"{where}, {name}", (fields[inner],))
    if name in ("in_", "not_in"):
        several = list(cast("Sequence[Any]", value)) if not isinstance(value, str | bytes) else []
        if not several:
            raise SetupError(f"Field '{where}' has the rule '{name}' without any value: list them.")
        return [_plain(each) for each in several]
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return Timestamp.from_datetime(value)
    if isinstance(value, timedelta):
        return Duration.from_timedelta(value)
    return value


def _check_ranges(rules: Mapping[str, Any], where: str) -> None:
    """Refuse what no value fulfils; protovalidate would read `gt` above `lt` as "outside of"."""
    for low, high in (*_ORDERED, *_SIZED):
        if low in rules and high in rules:
            try:
                empty = rules[low] > rules[high] or (rules[low] == rules[high] and "t" in (low[-1], high[-1]) and low in ("gt", "gte"))
            except TypeError:
                raise SetupError(f"Field '{where}' has {low} and {high} of different types: give both the field's own.") from None
            if empty:
                raise SetupError(f"Field '{where}' has {low}={rules[low]!r} and {high}={rules[high]!r}: no value fulfils both.")
