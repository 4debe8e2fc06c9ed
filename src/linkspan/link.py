"""From declarations in Python to a protobuf file descriptor: which type each field has, and every rule that a declaration can break."""

from __future__ import annotations

import keyword
import re
import typing
from collections import Counter
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

import protobuf
from protobuf import Oneof, ScalarType
from protobuf.wkt.google.protobuf.descriptor_pb import (
    DescriptorProto,
    EnumDescriptorProto,
    EnumValueDescriptorProto,
    FieldDescriptorProto,
    FieldOptions,
    FileDescriptorProto,
    MessageOptions,
    OneofDescriptorProto,
)

from linkspan.errors import SetupError
from linkspan.fields import MISSING, FieldSpec
from linkspan.options import OPTIONS_FILE, FieldRules, MessageRules, ext_field, ext_message
from linkspan.rules import require_oneof, write_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from protobuf import DescFile

__all__ = ["Declaration", "Linker", "camel_case", "check_identifier"]

Label = FieldDescriptorProto.Label
FieldType = FieldDescriptorProto.Type

_MAX_NUMBER: Final = 536_870_911
_PROTOBUF_OWN: Final = range(19_000, 20_000)
_IDENTIFIER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_PLAIN: Final[dict[Any, ScalarType]] = {
    str: ScalarType.STRING,
    bytes: ScalarType.BYTES,
    bool: ScalarType.BOOL,
    int: ScalarType.INT64,
    float: ScalarType.DOUBLE,
}
_FLOATS: Final = (ScalarType.FLOAT, ScalarType.DOUBLE)
_NO_MAP_KEY: Final = (*_FLOATS, ScalarType.BYTES)
_INSTEAD: Final = {
    "datetime": "use Timestamp and Timestamp.from_datetime()",
    "date": "use Timestamp, or str with the ISO date",
    "timedelta": "use Duration and Duration.from_timedelta()",
    "Decimal": "use int in the smallest unit, or str",
    "UUID": "use str",
    "set": "use list with repeated()",
    "frozenset": "use list with repeated()",
    "tuple": "use list with repeated()",
    "list": "write list[...] and repeated()",
    "dict": "write dict[..., ...] and mapping()",
    "Oneof": "declare it with oneof()",
}
_TYPES: Final = "str, bytes, bool, int, float, Int32 and its kin, an Enum, a Message, Timestamp or Duration"


@dataclass(slots=True, frozen=True)
class Declaration:
    """One message or enum as its class body declares it; `name` is its dotted name inside the package."""

    cls: type[Any]
    name: str
    fields: Mapping[str, FieldSpec]
    annotations: Mapping[str, Any]
    reserved: tuple[int | str, ...]
    event: bool
    linked: Callable[[], None]

    @property
    def is_enum(self) -> bool:
        """Tell an enum from a message."""
        return issubclass(self.cls, protobuf.Enum)


@dataclass(slots=True, frozen=True)
class _Type:
    """What an annotation means: a scalar, or the message or enum class behind it."""

    scalar: ScalarType | None
    cls: type[Any] | None
    optional: bool

    @property
    def is_message(self) -> bool:
        return self.cls is not None and issubclass(self.cls, protobuf.Message)


def camel_case(name: str) -> str:
    """Return `name` in lowerCamelCase, the way protoc derives JSON names."""
    return re.sub(r"_+([A-Za-z0-9]?)", lambda found: found[1].upper(), name)


def check_identifier(name: str, what: str) -> None:
    """Refuse a name that a `.proto` file could not hold."""
    if not _IDENTIFIER.fullmatch(name):
        raise SetupError(f"{what} has a name that protobuf does not allow: start with a letter, go on with letters, digits and '_'.")


def _proto_name(attribute: str) -> str:
    return attribute[:-1] if attribute.endswith("_") and keyword.iskeyword(attribute[:-1]) else attribute


def _check_attribute(attribute: str, where: str) -> None:
    check_identifier(attribute, f"Field '{where}'")
    if hasattr(protobuf.Message, attribute) or attribute == "self" or attribute.startswith(("ext_", "pb_")):
        raise SetupError(f"Field '{where}' would hide a part of every message, or be renamed by protobuf: take another name.")
    if attribute.endswith("_") and not keyword.iskeyword(attribute[:-1]):
        raise SetupError(f"Field '{where}' ends with '_', which only Python's keywords may (as in 'class_'): take it off.")


class Linker:
    """Builds one file descriptor from the declarations of one contract.

    `link_other` links the contract that a class of another module belongs to, before its descriptor is read.
    """

    def __init__(
        self, path: str, package: str, names: Mapping[str, Any], declared: Iterable[Declaration], link_other: Callable[[type], None]
    ) -> None:
        self.package = package
        self.dependencies: dict[str, DescFile] = {}
        self.declared = {declaration.cls: declaration for declaration in declared}
        self._names = names
        self._link_other = link_other
        self._proto = FileDescriptorProto(name=path, package=package, syntax="proto3")

    def file(self) -> FileDescriptorProto:
        """Return the descriptor of all declarations, each nested type inside its parent."""
        enums = {d.name: self._enum(d) for d in self.declared.values() if d.is_enum}
        messages = {d.name: self._message(d) for d in self.declared.values() if not d.is_enum}
        self._check_values(enums)
        for name in (*enums, *messages):
            outer = name.rpartition(".")[0]
            if outer and outer not in messages:
                raise SetupError(f"Type '{name}' is nested in a class that is no message: move it to the top of its module.")
            if name in enums:
                (messages[outer] if outer else self._proto).enum_type.append(enums[name])
            elif outer:
                messages[outer].nested_type.append(messages[name])
            else:
                self._proto.message_type.append(messages[name])
        self._proto.dependency.extend(self.dependencies)
        return self._proto

    # --- enums

    def _enum(self, declaration: Declaration) -> EnumDescriptorProto:
        name, cls = declaration.name, declaration.cls
        members: dict[str, Any] = dict(cls.__members__)
        aliases = [f"'{alias}' and '{member.name}'" for alias, member in members.items() if alias != member.name]
        if aliases:
            raise SetupError(f"Enum '{name}' gives one number to {aliases[0]}: give each its own.")
        if not members or next(iter(members.values())) != 0:
            raise SetupError(f"Enum '{name}' does not begin with 0, which absent fields read as: begin with 'UNSPECIFIED = 0'.")
        short = name.rpartition(".")[2]
        prefix = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("([^_])([A-Z][a-z]+)", r"\1_\2", short)).upper()
        proto = EnumDescriptorProto(name=short)
        for member in members.values():
            check_identifier(member.name, f"Enum value '{name}.{member.name}'")
            if not -(2**31) <= member.value < 2**31:
                raise SetupError(f"Enum value '{name}.{member.name}' is {member.value}: take a number that fits 32 bits.")
            proto.value.append(EnumValueDescriptorProto(name=f"{prefix}_{member.name}", number=member.value))
        self._reserve(declaration, {member.value: member.name for member in members.values()}, proto)
        return proto

    @staticmethod
    def _check_values(enums: Mapping[str, EnumDescriptorProto]) -> None:
        """Refuse two values of one name: protobuf keeps values beside their enum, not inside."""
        owners: dict[tuple[str, str], str] = {}
        for name, proto in enums.items():
            for value in proto.value:
                other = owners.setdefault((name.rpartition(".")[0], value.name), name)
                if other != name:
                    raise SetupError(f"Enums '{other}' and '{name}' both have the value '{value.name}': rename one of the enums.")

    # --- messages

    def _message(self, declaration: Declaration) -> DescriptorProto:
        name = declaration.name
        proto = DescriptorProto(name=name.rpartition(".")[2])
        if declaration.event:
            options = MessageOptions()
            options[ext_message] = MessageRules(event=True)
            proto.options = options
            self._use_options()
        for attribute, spec in declaration.fields.items():
            where = f"{name}.{attribute}"
            _check_attribute(attribute, where)
            hint = self._resolve(declaration, attribute)
            if spec.kind == "oneof":
                self._oneof(proto, attribute, spec, hint, where)
            else:
                self._field(proto, attribute, spec, hint, where)
        self._check_numbers(declaration, proto)
        for field in proto.field:
            if field.proto3_optional:  # protoc's synthetic oneofs come after the real ones
                field.oneof_index = len(proto.oneof_decl)
                proto.oneof_decl.append(OneofDescriptorProto(name=f"_{field.name}"))
        return proto

    def _check_numbers(self, declaration: Declaration, proto: DescriptorProto) -> None:
        name = declaration.name
        by_number: dict[int, str] = {}
        by_json: dict[str, str] = {}
        for field in proto.field:
            other = by_number.setdefault(field.number, field.name)
            if other != field.name:
                raise SetupError(f"Fields '{other}' and '{field.name}' of '{name}' both have number {field.number}: give each its own.")
            for spelling in {field.name, field.json_name}:
                other = by_json.setdefault(spelling, field.name)
                if other != field.name:
                    raise SetupError(f"Fields '{other}' and '{field.name}' of '{name}' are both '{spelling}' in JSON: rename one.")
        nested = [d.name.rpartition(".")[2] for d in self.declared.values() if d.name.rpartition(".")[0] == name]
        members = [*(f.name for f in proto.field), *(o.name for o in proto.oneof_decl), *(n.name for n in proto.nested_type)]
        for twice, count in Counter((*members, *nested)).items():
            if count > 1:  # protobuf keeps fields, oneofs, map entries and nested types in one scope
                raise SetupError(f"Message '{name}' uses the name '{twice}' twice: rename one.")
        keys = [attribute for attribute, spec in declaration.fields.items() if spec.key]
        if len(keys) > 1:
            raise SetupError(f"Message '{name}' has {len(keys)} key fields ('{keys[0]}', '{keys[1]}'): mark one.")
        self._reserve(declaration, by_number, proto)

    def _reserve(self, declaration: Declaration, used: Mapping[int, str], proto: DescriptorProto | EnumDescriptorProto) -> None:
        name = declaration.name
        fields = {*used.values(), *declaration.fields}
        lowest, highest = (-(2**31), 2**31 - 1) if declaration.is_enum else (1, _MAX_NUMBER)
        for entry, count in Counter(declaration.reserved).items():
            if count > 1 or not (isinstance(entry, str) or (type(entry) is int and lowest <= entry <= highest)):
                raise SetupError(f"Type '{name}' cannot reserve {entry!r}: list names, and numbers from {lowest} to {highest}, once each.")
            if isinstance(entry, str):
                if entry in fields:
                    raise SetupError(f"Name '{name}.{entry}' is reserved: take another, or take it off the `reserved` list.")
                proto.reserved_name.append(entry)
            elif entry in used:
                raise SetupError(f"Number {entry} of '{name}.{used[entry]}' is reserved: take another, never one that was used before.")
            elif isinstance(proto, EnumDescriptorProto):
                proto.reserved_range.append(EnumDescriptorProto.EnumReservedRange(start=entry, end=entry))  # end is included
            else:
                proto.reserved_range.append(DescriptorProto.ReservedRange(start=entry, end=entry + 1))  # end is not

    def _field(self, proto: DescriptorProto, attribute: str, spec: FieldSpec, hint: Any, where: str) -> None:
        if spec.kind == "repeated":
            if get_origin(hint) is not list:
                raise SetupError(f"Field '{where}' is repeated but not a list: write `list[...]`.")
            (found,) = self._elements(hint, where, 1)
        elif spec.kind == "map":
            found = self._map_entry(proto, attribute, hint, where)
        else:
            found = self._type(hint, where)
            self._check_single(spec, found, where)
        built = self._built(_proto_name(attribute), spec.number, found, where)
        if spec.kind == "single":
            if found.optional and not found.is_message:
                built.proto3_optional = True
        else:
            built.label = Label.REPEATED
        if spec.kind == "map":
            built.type, built.type_name = FieldType.MESSAGE, f".{self.package}.{where.rpartition('.')[0]}.{proto.nested_type[-1].name}"
        self._mark(built, spec)
        if spec.rules:
            pair = proto.nested_type[-1].field if spec.kind == "map" else ()
            self._use(*write_rules(built, spec.rules, where, pair))
        proto.field.append(built)

    def _map_entry(self, proto: DescriptorProto, attribute: str, hint: Any, where: str) -> _Type:
        if get_origin(hint) is not dict:
            raise SetupError(f"Field '{where}' is a mapping but not a dict: write `dict[..., ...]`.")
        key, value = self._elements(hint, where, 2)
        if key.scalar is None or key.scalar in _NO_MAP_KEY:
            raise SetupError(f"Field '{where}' has map keys that protobuf does not allow: use str, bool or an integer.")
        camel = camel_case(_proto_name(attribute))
        entry = DescriptorProto(name=f"{camel[0].upper()}{camel[1:]}Entry", options=MessageOptions(map_entry=True))
        entry.field.extend([self._built("key", 1, key, where), self._built("value", 2, value, where)])
        proto.nested_type.append(entry)
        return value

    def _oneof(self, proto: DescriptorProto, attribute: str, spec: FieldSpec, hint: Any, where: str) -> None:
        parts: tuple[Any, ...] = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        cases: dict[str, Any] = {}
        for part in parts:
            if get_origin(part) is Oneof:
                name, value = get_args(part)
                cases[get_args(name)[0] if get_origin(name) is Literal else ""] = value
        if type(None) not in parts or len(cases) != len(parts) - 1 or set(cases) != set(spec.cases):
            raise SetupError(
                f"Field '{where}' does not name the cases of its oneof: "
                'write `Oneof[Literal["a"], A] | Oneof[Literal["b"], B] | None = oneof(a=1, b=2)`.'
            )
        index = len(proto.oneof_decl)
        proto.oneof_decl.append(OneofDescriptorProto(name=_proto_name(attribute)))
        if spec.rules:
            self._use(*require_oneof(proto.oneof_decl[-1]))
        for case, number in spec.cases.items():
            _check_attribute(case, f"{where}.{case}")
            built = self._built(case, number, self._single(cases[case], f"{where}.{case}"), f"{where}.{case}")
            built.oneof_index = index
            self._mark(built, spec)
            proto.field.append(built)

    def _built(self, name: str, number: int, found: _Type, where: str) -> FieldDescriptorProto:
        if type(number) is not int or not 1 <= number <= _MAX_NUMBER:
            raise SetupError(f"Field '{where}' has number {number!r}: take a whole number from 1 to {_MAX_NUMBER}.")
        if number in _PROTOBUF_OWN:
            raise SetupError(f"Field '{where}' has number {number}: take one outside 19000 to 19999, which protobuf keeps for itself.")
        built = FieldDescriptorProto(name=name, number=number, json_name=camel_case(name), label=Label.OPTIONAL)
        if found.scalar is not None:
            built.type = FieldType(int(found.scalar))
        elif found.cls is not None:
            built.type = FieldType.MESSAGE if found.is_message else FieldType.ENUM
            built.type_name = self._type_name(found.cls)
        return built

    def _mark(self, built: FieldDescriptorProto, spec: FieldSpec) -> None:
        if spec.deprecated:
            built.options = FieldOptions(deprecated=True)
        if spec.key or spec.pii:
            built.options = built.options or FieldOptions()
            built.options[ext_field] = FieldRules(key=spec.key, pii=spec.pii)
            self._use_options()

    def _use_options(self) -> None:
        self._use(OPTIONS_FILE.name, OPTIONS_FILE)

    def _use(self, name: str, file: DescFile) -> None:
        self.dependencies[name] = file

    # --- types

    def _resolve(self, declaration: Declaration, attribute: str) -> Any:
        where = f"{declaration.name}.{attribute}"
        inside, function, _ = declaration.cls.__qualname__.rpartition("<locals>.")
        local: dict[str, Any] = {d.name: d.cls for d in self.declared.values() if d.cls.__qualname__ == inside + function + d.name}
        local.update((name, value) for name, value in vars(declaration.cls).items() if name not in declaration.fields)
        holder = type("holder", (), {"__annotations__": {attribute: declaration.annotations[attribute]}})
        try:
            return typing.get_type_hints(holder, dict(self._names), local, include_extras=True)[attribute]
        except NameError as error:
            raise SetupError(
                f"Field '{where}' names the type '{error.name}', which its module does not have at run time: "
                "import it outside `if TYPE_CHECKING:`, and declare it above the ServiceContract."
            ) from None
        except Exception as error:
            raise SetupError(f"Field '{where}' has an annotation that cannot be read ({error}): use one of {_TYPES}.") from error

    def _type(self, hint: Any, where: str) -> _Type:
        if get_origin(hint) in (Union, UnionType):
            parts = [part for part in get_args(hint) if part is not type(None)]
            if len(parts) != 1 or len(parts) == len(get_args(hint)):
                raise SetupError(f"Field '{where}' can be of several types: use oneof(), or one type and `| None`.")
            return self._single(parts[0], where, optional=True)
        return self._single(hint, where)

    def _single(self, hint: Any, where: str, *, optional: bool = False) -> _Type:
        if get_origin(hint) is Annotated:
            plain, *marks = get_args(hint)
            scalars = [mark for mark in marks if isinstance(mark, ScalarType)]
            return _Type(scalars[0], None, optional) if scalars else self._single(plain, where, optional=optional)
        if hint in _PLAIN:
            return _Type(_PLAIN[hint], None, optional)
        if _is_declarable(hint):
            return _Type(None, hint, optional)
        bare = get_origin(hint) or hint
        instead = _INSTEAD.get(getattr(bare, "__name__", ""), f"use {_TYPES}")
        raise SetupError(f"Field '{where}' has a type that protobuf does not know, {getattr(bare, '__name__', bare)}: {instead}.")

    def _elements(self, hint: Any, where: str, count: int) -> list[_Type]:
        arguments = get_args(hint)
        if len(arguments) != count:
            raise SetupError(f"Field '{where}' does not say what it holds: write `list[...]` or `dict[..., ...]`.")
        return [self._single(argument, where) for argument in arguments]

    def _check_single(self, spec: FieldSpec, found: _Type, where: str) -> None:
        if found.is_message and not found.optional:
            raise SetupError(f"Field '{where}' is a message and reads as None when absent: add `| None` and `default=None`.")
        if spec.default is not MISSING and not _is_zero(spec.default, found):
            zero = "None" if found.optional else "the zero value of its type"
            raise SetupError(f"Field '{where}' has default {spec.default!r}, but absent fields read as {zero}: take that, or no default.")
        if spec.key and (found.optional or found.is_message or found.scalar in _NO_MAP_KEY):
            raise SetupError(f"Field '{where}' cannot be the key: mark a str, an integer, a bool or an enum without `| None`.")

    def _type_name(self, cls: type[Any]) -> str:
        if cls in self.declared:
            return f".{self.package}.{self.declared[cls].name}"
        self._link_other(cls)
        try:
            desc = cls.desc()
        except AttributeError:
            raise SetupError(
                f"Type '{cls.__module__}.{cls.__qualname__}' is no linked message or enum: declare it in a contract."
            ) from None
        self.dependencies[desc.file.name] = desc.file
        return f".{desc.type_name}"


def _is_declarable(hint: Any) -> bool:
    return isinstance(hint, type) and get_origin(hint) is None and issubclass(hint, protobuf.Message | protobuf.Enum)


def _is_zero(default: Any, found: _Type) -> bool:
    if found.optional:
        return default is None
    if found.scalar is None:
        return type(default) is found.cls and default == 0
    plain: dict[ScalarType, Any] = {ScalarType.STRING: "", ScalarType.BYTES: b"", ScalarType.BOOL: False}
    zero = plain.get(found.scalar, 0.0 if found.scalar in _FLOATS else 0)
    return default == zero and (type(default) is type(zero) or (found.scalar in _FLOATS and type(default) is int))
