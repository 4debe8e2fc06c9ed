"""Single values as they stand in a path or a query: the texts of ProtoJSON, read strictly and written in one form."""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from protobuf import (
    DescEnum,
    DescFieldValueEnum,
    DescFieldValueList,
    DescFieldValueMessage,
    DescFieldValueScalar,
    DescMessage,
    Message,
    ScalarType,
)

from linkspan.errors import Code, Error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protobuf import DescField

__all__ = ["expected", "kind_of", "put", "read_text", "write_text"]

Kind: TypeAlias = ScalarType | DescEnum | DescMessage

_RANGES: Final = {
    **dict.fromkeys((ScalarType.INT32, ScalarType.SINT32, ScalarType.SFIXED32), (-(2**31), 2**31 - 1)),
    **dict.fromkeys((ScalarType.UINT32, ScalarType.FIXED32), (0, 2**32 - 1)),
    **dict.fromkeys((ScalarType.INT64, ScalarType.SINT64, ScalarType.SFIXED64), (-(2**63), 2**63 - 1)),
    **dict.fromkeys((ScalarType.UINT64, ScalarType.FIXED64), (0, 2**64 - 1)),
}
_INT32: Final = _RANGES[ScalarType.INT32]
_WHOLE: Final = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_DECIMAL: Final = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?", re.ASCII)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]*={0,2}", re.ASCII)
_STANDARD: Final = str.maketrans("-_", "+/")
_BOOLS: Final = {"true": True, "false": False}
_SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MOST_FLOAT32: Final = 3.4028235677973366e38
_FORMS: Final = {
    "google.protobuf.Timestamp": "a moment as in 2026-01-31T12:00:00Z",
    "google.protobuf.Duration": "seconds as in 1.5s",
    "google.protobuf.FieldMask": "names of fields, separated by commas",
}
_MOST_NAMES: Final = 20


def kind_of(found: DescField) -> Kind:
    """Return the type of a field's single values, those of a list included."""
    match found.value:
        case DescFieldValueScalar(scalar=scalar):
            return scalar
        case DescFieldValueEnum(enum=enum):
            return enum
        case DescFieldValueMessage(message=message):
            return message
        case DescFieldValueList(element=element):
            return element
        case _:
            raise AssertionError("a map is no parameter")


def expected(kind: Kind) -> str:
    """Return what a text of this type looks like, for people."""
    if isinstance(kind, DescMessage):
        return _FORMS[kind.type_name] if kind.type_name in _FORMS else expected(kind_of(kind.fields[0]))
    if isinstance(kind, DescEnum):
        names = [value.name for value in kind.values]
        return f"one of {', '.join(names[:_MOST_NAMES])}{' and others' if len(names) > _MOST_NAMES else ''}"
    if kind in _RANGES:
        low, high = _RANGES[kind]
        return f"a whole number from {low} to {high}"
    plain = {ScalarType.BOOL: "true or false", ScalarType.BYTES: "bytes in base64", ScalarType.STRING: "text"}
    return plain.get(kind, "a number")


def read_text(kind: Kind, text: str) -> Any:
    """Return the value that a text stands for. Raises `ValueError`."""
    if isinstance(kind, DescMessage):
        cls: Any = kind.type
        if kind.type_name not in _FORMS:
            return cls(value=read_text(kind_of(kind.fields[0]), text))
        try:
            return cls.from_json(json.dumps(text))
        except (TypeError, OverflowError) as error:
            raise ValueError(kind.type_name) from error
    if isinstance(kind, DescEnum):
        return _read_enum(kind, text)
    return _read_scalar(kind, text)


def _read_scalar(kind: ScalarType, text: str) -> Any:
    if kind in _RANGES:
        return _read_whole(text, *_RANGES[kind])
    match kind:
        case ScalarType.BOOL:
            return _BOOLS[text] if text in _BOOLS else _refuse()
        case ScalarType.BYTES:
            return _read_bytes(text)
        case ScalarType.FLOAT | ScalarType.DOUBLE:
            return _read_float(text, single=kind is ScalarType.FLOAT)
        case _:
            return text


def _read_bytes(text: str) -> bytes:
    if not _BASE64.fullmatch(text):
        _refuse()
    plain = text.rstrip("=").translate(_STANDARD)
    return b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _refuse() -> Any:
    raise ValueError("not such a text")


def _read_whole(text: str, low: int, high: int) -> int:
    if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
        _refuse()
    return int(text)


def _read_float(text: str, *, single: bool) -> float:
    if text in _SPECIAL:
        return _SPECIAL[text]
    number = float(text) if _DECIMAL.fullmatch(text) else math.inf
    if math.isinf(number) or (single and abs(number) >= _MOST_FLOAT32):
        _refuse()
    return number


def _read_enum(kind: DescEnum, text: str) -> Any:
    cls: Any = kind.type
    for value in kind.values:
        if value.name == text:
            return cls(value.number)
    return cls(_read_whole(text, *_INT32))  # numbers without a name here are kept as they are


def write_text(kind: Kind, value: Any) -> str:
    """Return the text of a value. Raises what protobuf-py raises for a value of a wrong type."""
    if isinstance(kind, DescMessage):
        if kind.type_name in _FORMS:
            return str(json.loads(value.to_json()))
        return write_text(kind_of(kind.fields[0]), value.value)
    if isinstance(kind, DescEnum):
        return next((each.name for each in kind.values if each.number == value), str(int(value)))
    return _write_scalar(kind, value)


def _write_scalar(kind: ScalarType, value: Any) -> str:
    if kind in _RANGES:
        return str(int(value)) if isinstance(value, int) else _wrong(value)
    match kind:
        case ScalarType.BOOL:
            return ("false", "true")[value] if isinstance(value, bool) else _wrong(value)
        case ScalarType.BYTES:
            return urlsafe_b64encode(value).decode()
        case ScalarType.FLOAT | ScalarType.DOUBLE:
            return next((name for name, special in _SPECIAL.items() if repr(special) == repr(float(value))), repr(float(value)))
        case _:
            return value if isinstance(value, str) else _wrong(value)


def _wrong(value: object) -> Any:
    raise TypeError(type(value).__name__)


def put(message: Message, chain: Sequence[DescField], texts: Sequence[str], name: str) -> None:
    """Set the field at the end of a chain from the texts of a parameter. Raises `Error`, which names it but not its value."""
    *outer, last = chain
    kind = kind_of(last)
    try:
        values = [read_text(kind, text) for text in texts]
    except (ValueError, ArithmeticError):
        raise Error(Code.INVALID_ARGUMENT, f"Reading the parameter '{name}' failed: give {expected(kind)}.") from None
    holder: Any = message
    for link in outer:
        _check_case(holder, link, name)
        if holder[link] is None:
            holder[link] = cast("DescMessage", kind_of(link)).type()
        holder = holder[link]
    _check_case(holder, last, name)
    if isinstance(last.value, DescFieldValueList):
        holder[last] = values
        return
    if len(values) != 1:
        raise Error(Code.INVALID_ARGUMENT, f"The parameter '{name}' is given {len(values)} times: give it once.")
    holder[last] = values[0]


def _check_case(holder: Any, found: DescField, name: str) -> None:
    """Refuse a second case of a oneof: the first would be lost without a word."""
    group = getattr(found.value, "oneof", None)
    if group is not None and found not in holder and getattr(holder, group.local_name) is not None:
        raise Error(Code.INVALID_ARGUMENT, f"The parameter '{name}' excludes another one that is given: keep one.")
