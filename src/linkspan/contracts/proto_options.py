"""Options as `.proto` text: `(linkspan.field).key = true`, and text format for what does not fit on one line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import protobuf
from protobuf import DescFieldValueList, DescFieldValueMap, Enum, ScalarType

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from protobuf import DescExtension, DescField, Registry

__all__ = ["Option", "options_of", "quoted"]

_WHOLE = ("google.api.",)
"""Options of these packages are written as one block, as their own documentation does."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name as written, and its value, of several lines where it is a block."""

    name: str
    value: str


def options_of(options: protobuf.Message[Any] | None, registry: Registry, where: str) -> list[Option]:
    """Return the options that are set, in the order of their numbers; extensions are looked up in the registry.

    Raises:
        SetupError: An option is set whose extension no imported file declares.
    """
    if options is None:
        return []
    desc = registry.message(type(options).desc().type_name) or type(options).desc()
    read: Any = desc.type.from_binary(options.to_binary())
    found: list[Option] = []
    for field in desc.fields:
        if field in read:
            found.extend(_options(field.name, field, read[field], whole=False))
            del read[field]
    for extension in sorted(registry.extensions_for(desc), key=lambda each: each.number):
        key: Any = cast("Any", extension).type
        if key in read:
            value = read[key]
            if _is_message(value) and _has_unknown(value):
                break
            whole = extension.type_name.startswith(_WHOLE)
            found.extend(_options(f"({extension.type_name})", extension, value, whole=whole))
            del read[key]
    if read.to_binary():
        raise SetupError(f"'{where}' has an option that no imported file declares: import the file that extends '{desc.type_name}'.")
    return found


def _is_message(value: object) -> TypeGuard[protobuf.Message[Any]]:
    return isinstance(value, protobuf.Message)


def _has_unknown(value: protobuf.Message[Any]) -> bool:
    return value.to_binary() != value.to_binary(write_unknown_fields=False)


def _options(name: str, field: DescField | DescExtension, value: Any, *, whole: bool) -> Iterator[Option]:
    if isinstance(field.value, DescFieldValueMap):
        for key, item in value.items():
            yield Option(name, "\n".join(["{", *(f"  {line}" for line in _pair(field.value, key, item)), "}"]))
    elif isinstance(field.value, DescFieldValueList):
        for item in value:
            yield Option(name, _block(item, field.value.element))
    elif _is_message(value) and not whole and (inners := _set(value)):
        for inner in inners:
            yield from _options(f"{name}.{inner.name}", inner, value[inner], whole=False)
    else:
        yield Option(name, _block(value, _kind(field)))


def _set(message: protobuf.Message[Any]) -> list[DescField]:
    return [field for field in type(message).desc().fields if field in message]


def _kind(field: DescField | DescExtension) -> Any:
    value: Any = field.value
    return getattr(value, "scalar", None) or getattr(value, "enum", None) or getattr(value, "message", None)


def _block(value: Any, kind: Any) -> str:
    if not _is_message(value):
        return _scalar(value, kind)
    lines = list(_fields(value))
    if len(lines) < 2:  # noqa: PLR2004 - buf keeps a single one beside its braces
        return f"{{{''.join(lines)}}}"
    return "\n".join(["{", *(f"  {line}" for line in lines), "}"])


def _fields(message: protobuf.Message[Any]) -> Iterator[str]:
    """Write the set fields of a message in text format, one a line."""
    for field in _set(message):
        value = message[field]
        if isinstance(field.value, DescFieldValueMap):
            for key, item in value.items():
                yield from (f"{field.name}: {{", *(f"  {line}" for line in _pair(field.value, key, item)), "}")
        elif isinstance(field.value, DescFieldValueList):
            for item in value:
                yield from f"{field.name}: {_block(item, field.value.element)}".split("\n")
        else:
            yield from f"{field.name}: {_block(value, _kind(field))}".split("\n")


def _pair(desc: DescFieldValueMap, key: Any, item: Any) -> Iterator[str]:
    yield f"key: {_scalar(key, desc.key)}"
    yield from f"value: {_block(item, desc.value)}".split("\n")


def _scalar(value: Any, kind: Any) -> str:
    if isinstance(kind, ScalarType):
        if kind is ScalarType.BOOL:
            return "true" if value else "false"
        if kind in (ScalarType.STRING, ScalarType.BYTES):
            return quoted(value)
        if kind in (ScalarType.DOUBLE, ScalarType.FLOAT):
            return _number(value)
        return str(value)
    if isinstance(value, Enum):
        return next((each.name for each in type(value).desc().values if each.number == value), str(int(value)))
    return str(value)


def _number(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return str(value)
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)  # noqa: PLR2004 - above, repr is shorter


def quoted(value: str | bytes) -> str:
    """Return a string literal; bytes outside of ASCII are written as octal escapes where they are no text."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    characters = value if isinstance(value, str) else value.decode("latin-1")
    limit = 0x110000 if isinstance(value, str) else 0x7F
    return '"' + "".join(escapes.get(c, c if 0x20 <= ord(c) < limit and c != "\x7f" else f"\\{ord(c):03o}") for c in characters) + '"'  # noqa: PLR2004 - printable ASCII
