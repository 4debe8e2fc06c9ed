"""JSON Schema 2020-12 of messages, as the ProtoJSON mapping writes and reads them.

https://protobuf.dev/programming-guides/json/ and https://json-schema.org/draft/2020-12. A schema takes all that our side writes and
the plain forms of what it reads: names in lowerCamelCase, 64-bit integers as text or number, enum values by name or number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from protobuf import (
    DescEnum,
    DescFieldValueEnum,
    DescFieldValueList,
    DescFieldValueMap,
    DescFieldValueMessage,
    DescFieldValueScalar,
    DescMessage,
    Message,
    ScalarType,
)

from linkspan.contract import find_contract
from linkspan.options import ext_field

if TYPE_CHECKING:
    from collections.abc import Collection

    from protobuf import DescField, DescOneof

__all__ = ["Schemas", "json_schema"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
KEY_MARK: Final = "x-linkspan-key"
PII_MARK: Final = "x-linkspan-pii"

_INT32: Final = (-(2**31), 2**31 - 1)
_UINT32: Final = (0, 2**32 - 1)
_INT64: Final = (-(2**63), 2**63 - 1)
_UINT64: Final = (0, 2**64 - 1)
_RANGES: Final = {
    ScalarType.INT32: _INT32,
    ScalarType.SINT32: _INT32,
    ScalarType.SFIXED32: _INT32,
    ScalarType.UINT32: _UINT32,
    ScalarType.FIXED32: _UINT32,
    ScalarType.INT64: _INT64,
    ScalarType.SINT64: _INT64,
    ScalarType.SFIXED64: _INT64,
    ScalarType.UINT64: _UINT64,
    ScalarType.FIXED64: _UINT64,
}
_FORMATS: Final = {_INT32: "int32", _UINT32: "uint32", _INT64: "int64", _UINT64: "uint64"}
_WHOLE: Final = r"^-?(0|[1-9][0-9]*)$"
_NATURAL: Final = r"^(0|[1-9][0-9]*)$"

_WELL_KNOWN: Final[dict[str, dict[str, Any]]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["1.500s"]},
    "google.protobuf.FieldMask": {"type": "string", "description": "Paths of fields, separated by commas."},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Value": {"description": "Any JSON value."},
    "google.protobuf.Any": {"type": "object", "properties": {"@type": {"type": "string"}}},
}
_WRAPPERS: Final = frozenset(
    f"google.protobuf.{name}Value" for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)


def json_schema(message: type[Message[Any]]) -> dict[str, Any]:
    """Return the schema of a message class as a document of its own; the types it needs are under `$defs`."""
    schemas = Schemas("#/$defs/")
    reference = schemas.reference(message.desc())
    return {"$schema": DIALECT, **reference, "$defs": schemas.defined}


class Schemas:
    """Collects the schemas of types, each once; `prefix` is where references point, as in `#/$defs/`."""

    def __init__(self, prefix: str) -> None:
        self.defined: dict[str, dict[str, Any]] = {}
        self._prefix = prefix
        self._docs: dict[str, dict[str, str]] = {}

    def reference(self, desc: DescMessage | DescEnum) -> dict[str, Any]:
        """Return what stands for a type: a reference, or the schema itself of a well-known one."""
        name = desc.type_name
        if isinstance(desc, DescMessage):
            if name in _WELL_KNOWN:
                return dict(_WELL_KNOWN[name])
            if name in _WRAPPERS:
                return self.of_field(desc.fields[0])
        elif name == "google.protobuf.NullValue":
            return {"type": "null"}
        if name not in self.defined:
            self.defined[name] = {}  # a type may hold itself
            self.defined[name] = self.message(desc) if isinstance(desc, DescMessage) else self._enum(desc)
        return {"$ref": f"{self._prefix}{name}"}

    def message(self, desc: DescMessage, without: Collection[str] = ()) -> dict[str, Any]:
        """Return the schema of a message, less the fields named in `without` (by their proto names)."""
        fields = [field for field in desc.fields if field.name not in without]
        schema: dict[str, Any] = {"type": "object"}
        self._describe(schema, desc)
        if fields:
            schema["properties"] = {field.json_name: self.of_field(field) for field in fields}
        groups = [group for group in desc.oneofs if not group.fields[0].proto.proto3_optional]
        choices = [choice for group in groups if (choice := _at_most_one(group, fields))]
        if choices:
            schema["allOf"] = choices
        return schema

    def of_field(self, field: DescField) -> dict[str, Any]:
        """Return the schema of a field's value, with its docs and marks."""
        schema: dict[str, Any]
        match field.value:
            case DescFieldValueScalar(scalar=scalar):
                schema = of_scalar(scalar)
            case DescFieldValueMessage(message=message):
                schema = self.reference(message)
            case DescFieldValueEnum(enum=enum):
                schema = self.reference(enum)
            case DescFieldValueList(element=element):
                schema = {"type": "array", "items": self._element(element)}
            case DescFieldValueMap(key=key, value=value):
                schema = {"type": "object", "additionalProperties": self._element(value)}
                if key is not ScalarType.STRING:
                    schema["propertyNames"] = _key(key)
        self._describe(schema, field)
        options = field.proto.options
        if options is not None and ext_field in options:
            rules = options[ext_field]
            schema.update({mark: True for mark, given in ((KEY_MARK, rules.key), (PII_MARK, rules.pii)) if given})
        if field.deprecated:
            schema["deprecated"] = True
        return schema

    def text(self, desc: DescMessage | DescEnum | DescField) -> str:
        """Return what the contract's source says about a type or field, empty where it says nothing."""
        if isinstance(desc, DescMessage | DescEnum):
            return self._contract_docs(desc).get(_inside(desc), "")
        docs, inside = self._contract_docs(desc.parent), _inside(desc.parent)
        group = getattr(desc.value, "oneof", None)
        return docs.get(f"{inside}.{desc.local_name}") or docs.get(f"{inside}.{getattr(group, 'local_name', '')}", "")

    def _enum(self, desc: DescEnum) -> dict[str, Any]:
        low, high = _INT32  # numbers that this version has no name for are written and read as they are
        named = {"type": "string", "enum": [value.name for value in desc.values]}
        schema: dict[str, Any] = {"anyOf": [named, {"type": "integer", "minimum": low, "maximum": high}]}
        self._describe(schema, desc)
        return schema

    def _element(self, element: DescMessage | DescEnum | ScalarType) -> dict[str, Any]:
        return of_scalar(element) if isinstance(element, ScalarType) else self.reference(element)

    def _describe(self, schema: dict[str, Any], desc: DescMessage | DescEnum | DescField) -> None:
        if text := self.text(desc):
            schema["description"] = text

    def _contract_docs(self, desc: DescMessage | DescEnum) -> dict[str, str]:
        contract = find_contract(desc.type.__module__)
        if contract is None:
            return {}
        if contract.package not in self._docs:
            self._docs[contract.package] = contract.docs()
        return self._docs[contract.package]


def of_scalar(scalar: ScalarType) -> dict[str, Any]:
    """Return the schema of a single value."""
    if scalar in _RANGES:
        low, high = bounds = _RANGES[scalar]
        schema: dict[str, Any] = {"type": "integer", "format": _FORMATS[bounds], "minimum": low, "maximum": high}
        if bounds in {_INT64, _UINT64}:  # written as text, because JavaScript's numbers have 53 bits
            schema.update({"type": ["string", "integer"], "pattern": _WHOLE if low else _NATURAL})
        return schema
    match scalar:
        case ScalarType.BOOL:
            return {"type": "boolean"}
        case ScalarType.BYTES:
            return {"type": "string", "contentEncoding": "base64", "pattern": "^[A-Za-z0-9+/_-]*={0,2}$"}
        case ScalarType.FLOAT | ScalarType.DOUBLE:
            number = {"type": "number", "format": "float" if scalar is ScalarType.FLOAT else "double"}
            return {"anyOf": [number, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}]}
        case _:
            return {"type": "string"}


def _key(scalar: ScalarType) -> dict[str, Any]:
    """Return the schema of a map's key, which JSON writes as text."""
    if scalar is ScalarType.BOOL:
        return {"enum": ["true", "false"]}
    return {"pattern": _WHOLE if _RANGES[scalar][0] else _NATURAL}


def _at_most_one(group: DescOneof, fields: list[DescField]) -> dict[str, Any] | None:
    """Return the rule of a oneof: one of its fields, or none."""
    required: list[dict[str, Any]] = [{"required": [field.json_name]} for field in group.fields if field in fields]
    if len(required) < 2:  # noqa: PLR2004 - a single one excludes nothing
        return None
    return {"oneOf": [*required, {"not": {"anyOf": required}}]}


def _inside(desc: DescMessage | DescEnum) -> str:
    """Return the name inside the package, as in `Order.Line`."""
    return desc.type_name.removeprefix(f"{desc.file.proto.package}.")
