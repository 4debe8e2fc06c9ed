"""What may stand behind the `=` of a field: its number, its marks, and the protobuf scalars that Python has no type for."""

from __future__ import annotations

from dataclasses import dataclass, field as dataclass_field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Unpack, cast, overload

from protobuf import ScalarType

if TYPE_CHECKING:
    from linkspan.rules import ListRules, MapRules, Rules

__all__ = [
    "FieldSpec",
    "Fixed32",
    "Fixed64",
    "Float32",
    "Int32",
    "SFixed32",
    "SFixed64",
    "SInt32",
    "SInt64",
    "UInt32",
    "UInt64",
    "field",
    "mapping",
    "oneof",
    "repeated",
]

# Plain `int` is int64 and plain `float` is double; to a type checker all of these are `int` and `float`.
Int32 = Annotated[int, ScalarType.INT32]
UInt32 = Annotated[int, ScalarType.UINT32]
UInt64 = Annotated[int, ScalarType.UINT64]
SInt32 = Annotated[int, ScalarType.SINT32]
SInt64 = Annotated[int, ScalarType.SINT64]
Fixed32 = Annotated[int, ScalarType.FIXED32]
Fixed64 = Annotated[int, ScalarType.FIXED64]
SFixed32 = Annotated[int, ScalarType.SFIXED32]
SFixed64 = Annotated[int, ScalarType.SFIXED64]
Float32 = Annotated[float, ScalarType.FLOAT]

T = TypeVar("T")
MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """What a class body says about one attribute; `cases` maps the case names of a oneof to their numbers."""

    kind: Literal["single", "repeated", "map", "oneof"]
    number: int = 0
    default: Any = MISSING
    key: bool = False
    pii: bool = False
    cases: dict[str, int] = dataclass_field(default_factory=dict[str, int])
    rules: dict[str, Any] = dataclass_field(default_factory=dict[str, Any])
    deprecated: bool = False


@overload
def field(number: int, /, *, key: bool = False, pii: bool = False, deprecated: bool = False, **rules: Unpack[Rules]) -> Any: ...
@overload
def field(number: int, /, *, default: T, key: bool = False, pii: bool = False, deprecated: bool = False, **rules: Unpack[Rules]) -> T: ...
def field(
    number: int, /, *, default: Any = MISSING, key: bool = False, pii: bool = False, deprecated: bool = False, **rules: Unpack[Rules]
) -> Any:
    """Declare a field by its number, which never changes once data with it exists.

    Args:
        number: 1 to 536,870,911, without 19,000 to 19,999; up to 15 takes one byte on the wire.
        default: The zero value of the type, or None for an optional field. A type checker then lets the constructor leave it out.
        key: Mark the order key: messages with the same key are handled in the order of their commits.
        pii: Mark personal data: redacted in `repr` and logs.
        deprecated: Say that the field is on its way out: still read, no longer to be written. Shown in all exports.
        rules: What may stand in it, as in `field(2, gt=0, lte=100)` or `field(3, email=True)`: checked at the edge of every service.
    """
    return FieldSpec("single", number, default, key, pii, rules=dict(rules), deprecated=deprecated)


def repeated(number: int, /, *, pii: bool = False, deprecated: bool = False, **rules: Unpack[ListRules]) -> list[Any]:
    """Declare a `list[...]` field; absent reads as an empty list. Rules: `repeated(4, min_items=1, items={"min_len": 3})`."""
    return cast("list[Any]", FieldSpec("repeated", number, pii=pii, rules=dict(rules), deprecated=deprecated))


def mapping(number: int, /, *, pii: bool = False, deprecated: bool = False, **rules: Unpack[MapRules]) -> dict[Any, Any]:
    """Declare a `dict[..., ...]` field; absent reads as an empty dict. Keys are `str`, `bool` or any of the integers."""
    return cast("dict[Any, Any]", FieldSpec("map", number, pii=pii, rules=dict(rules), deprecated=deprecated))


def oneof(*, pii: bool = False, required: bool = False, **cases: int) -> Any:
    """Declare an attribute that holds at most one of several cases, by the number of each.

    `required` refuses messages without any of them.
    The annotation names the same cases: `Oneof[Literal["card"], Card] | Oneof[Literal["iban"], str] | None = oneof(card=8, iban=9)`.
    """
    return FieldSpec("oneof", pii=pii, cases=cases, rules={"required": True} if required else {})
