"""Descriptors as `.proto` text, in the form that `buf format` leaves alone: proto3, and what proto2 files such as `buf/validate` hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protobuf import DescEnum, DescField, DescFieldValueList, DescFieldValueMap, DescMessage, ScalarType
from protobuf.wkt.google.protobuf.descriptor_pb import FieldDescriptorProto

from linkspan.contracts.proto_names import Names
from linkspan.contracts.proto_options import Option, options_of, quoted
from linkspan.errors import SetupError
from linkspan.link import camel_case

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from protobuf import DescExtension, DescFile, DescMethod, DescOneof, DescService
    from protobuf.wkt.google.protobuf.descriptor_pb import (
        DescriptorProto,
        EnumDescriptorProto,
        EnumValueDescriptorProto,
        FileDescriptorSet,
    )

__all__ = ["ProtoText"]


class ProtoText:
    """Prints the files of one self-contained descriptor set.

    Args:
        files: The files, each behind those that it imports.
        comments: What stands above a declaration, by its full name; above `package` by the package.
    """

    def __init__(self, files: FileDescriptorSet, comments: Mapping[str, str]) -> None:
        self._registry = files.to_registry()
        self._comments = comments
        found = (self._registry.file(file.name) for file in files.file)
        self._names = Names(file for file in found if file is not None)
        self._package = ""
        self._proto2 = False

    def file(self, path: str, head: str = "") -> str:
        """Return the text of one file; `head` is a comment for its top.

        Raises:
            SetupError: It is not in the set, is of an edition, or has an option that nothing declares.
        """
        file = self._registry.file(path)
        if file is None or file.proto.syntax not in {"", "proto2", "proto3"}:
            raise SetupError(f"File '{path}' cannot be printed: only proto2 and proto3 files of the contract can.")
        self._package = file.proto.package
        self._proto2 = file.proto.syntax != "proto3"
        parts = [
            [*_comment(head), *([""] if head else []), f'syntax = "{"proto2" if self._proto2 else "proto3"}";'],
            [*self._above(self._package), f"package {self._package};"],
            [f"import {quoted(name)};" for name in sorted(file.proto.dependency)],
            _statements(sorted(self._options(file.proto.options, path), key=lambda each: (each.name.startswith("("), each.name))),
            *self._extensions(file),
            *(self._service(service) for service in file.services),
            *(self._message(message) for message in file.messages),
            *(self._enum(enum) for enum in file.enums),
        ]
        return "\n\n".join("\n".join(part) for part in parts if part) + "\n"

    # --- what is declared

    def _service(self, service: DescService) -> list[str]:
        lines = _statements(self._options(service.proto.options, service.type_name))
        methods = [self._method(method) for method in service.methods]
        return [*self._above(service.type_name), *_braces(f"service {service.name}", [lines, *_apart(methods)])]

    def _method(self, method: DescMethod) -> list[str]:
        scope = f"{method.parent.type_name}.{method.name}"
        takes, gives = (self._names.shortest(each.type_name, scope, self._package) for each in (method.input, method.output))
        takes = f"stream {takes}" if method.proto.client_streaming else takes
        gives = f"stream {gives}" if method.proto.server_streaming else gives
        head = f"rpc {method.name}({takes}) returns ({gives})"
        options = _statements(self._options(method.proto.options, scope))
        return [*self._above(scope), *(_braces(head, [options]) if options else [f"{head};"])]

    def _message(self, message: DescMessage) -> list[str]:
        name = message.type_name
        if message.nested_extensions:
            raise SetupError(f"Message '{name}' declares extensions: declare them at the top of a file.")
        fields = [self._field(each, name) if isinstance(each, DescField) else self._oneof(each, name) for each in message.members]
        inner = [*(self._message(each) for each in message.nested_messages), *(self._enum(each) for each in message.nested_enums)]
        head = [*_statements(self._options(message.proto.options, name)), *_reserved(message.proto), *_extension_ranges(message.proto)]
        return [*self._above(name), *_braces(f"message {message.name}", [head, *_close(fields), *_apart(inner)])]

    def _enum(self, enum: DescEnum) -> list[str]:
        head = [*_statements(self._options(enum.proto.options, enum.type_name)), *_reserved(enum.proto)]
        values = [self._value(value, enum.type_name) for value in enum.proto.value]
        return [*self._above(enum.type_name), *_braces(f"enum {enum.name}", [head, *_close(values)])]

    def _value(self, value: EnumValueDescriptorProto, enum: str) -> list[str]:
        name = f"{enum}.{value.name}"
        return [*self._above(name), *_with_options(f"{value.name} = {value.number}", self._options(value.options, name))]

    def _extensions(self, file: DescFile) -> Iterator[list[str]]:
        for extension in file.extensions:
            where = f"extend {self._names.shortest(extension.extendee.type_name, self._package, self._package)}"
            name = f"{self._package}.{extension.name}"
            yield _braces(where, [[*self._above(name), *self._declared(extension, name, self._package)]])

    def _oneof(self, oneof: DescOneof, message: str) -> list[str]:
        options = _statements(self._options(oneof.proto.options, f"{message}.{oneof.name}"))
        cases = [self._field(field, message) for field in oneof.fields]
        return [*self._above(f"{message}.{oneof.name}"), *_braces(f"oneof {oneof.name}", [options, *_close(cases)])]

    def _field(self, field: DescField, message: str) -> list[str]:
        name = f"{message}.{field.name}"
        return [*self._above(name), *self._declared(field, name, message)]

    def _declared(self, field: DescField | DescExtension, name: str, scope: str) -> list[str]:
        proto = field.proto
        options = self._options(proto.options, name)
        if proto.default_value:
            raise SetupError(f"Field '{name}' has a default value, which this printer does not write: leave it out.")
        if isinstance(field, DescField) and proto.json_name != camel_case(field.name):
            options.append(Option("json_name", quoted(proto.json_name)))
        return _with_options(f"{self._label(field)}{self._type(field.value, scope)} {field.name} = {field.number}", options)

    def _label(self, field: DescField | DescExtension) -> str:
        proto = field.proto
        if isinstance(field.value, DescFieldValueList):
            return "repeated "
        if proto.label == FieldDescriptorProto.Label.REQUIRED:
            return "required "
        inside = isinstance(field.value, DescFieldValueMap) or getattr(field.value, "oneof", None) is not None
        return "optional " if proto.proto3_optional or (self._proto2 and not inside) else ""

    def _type(self, value: Any, scope: str) -> str:
        if isinstance(value, DescFieldValueMap):
            return f"map<{value.key.name.lower()}, {self._one(value.value, scope)}>"
        if isinstance(value, DescFieldValueList):
            return self._one(value.element, scope)
        return self._one(getattr(value, "scalar", None) or getattr(value, "message", None) or value.enum, scope)

    def _one(self, kind: ScalarType | DescMessage | DescEnum, scope: str) -> str:
        if isinstance(kind, ScalarType):
            return kind.name.lower()
        return self._names.shortest(kind.type_name, scope, self._package)

    # --- what stands around it

    def _above(self, name: str) -> list[str]:
        return _comment(self._comments.get(name, ""))

    def _options(self, options: Any, where: str) -> list[Option]:
        return options_of(options, self._registry, where)


def _comment(text: str) -> list[str]:
    return [f"// {line}".rstrip() for line in text.splitlines()]


def _statements(options: Sequence[Option]) -> list[str]:
    return [line for each in options for line in f"option {each.name} = {each.value};".split("\n")]


def _with_options(head: str, options: Sequence[Option]) -> list[str]:
    """Put options behind a field or a value: one beside it, more on a line each."""
    if not options:
        return [f"{head};"]
    if len(options) == 1:
        return f"{head} [{options[0].name} = {options[0].value}];".split("\n")
    lines = ",\n".join(f"{each.name} = {each.value}" for each in options).split("\n")
    return [f"{head} [", *(f"  {line}" for line in lines), "];"]


def _reserved(proto: DescriptorProto | EnumDescriptorProto) -> list[str]:
    """Write reserved numbers and names; the end of a range is included in enums, not in messages."""
    beyond = 0 if type(proto).__name__.startswith("Enum") else 1
    highest = 2**31 - 1 if beyond == 0 else 2**29 - 1
    ranges = [(each.start, each.end - beyond) for each in proto.reserved_range]
    numbers = [f"{low}" if low == high else f"{low} to {'max' if high == highest else high}" for low, high in ranges]
    names = [quoted(name) for name in proto.reserved_name]
    return [f"reserved {', '.join(each)};" for each in (numbers, names) if each]


def _extension_ranges(proto: DescriptorProto) -> list[str]:
    ends = [(each.start, "max" if each.end > 2**29 - 1 else str(each.end - 1)) for each in proto.extension_range]
    return [f"extensions {low};" if str(low) == high else f"extensions {low} to {high};" for low, high in ends]


def _close(parts: Sequence[Sequence[str]]) -> list[list[str]]:
    """Put one-line declarations below each other, in one block."""
    return [[line for part in parts for line in part]] if parts else []


def _apart(parts: Sequence[Sequence[str]]) -> list[list[str]]:
    return [list(part) for part in parts]


def _braces(head: str, blocks: Sequence[Sequence[str]]) -> list[str]:
    """Put blocks between braces, with an empty line between two."""
    filled = [block for block in blocks if block]
    if not filled:
        return [f"{head} {{}}"]
    lines = "\n\n".join("\n".join(block) for block in filled).split("\n")
    return [f"{head} {{", *(f"  {line}" if line else "" for line in lines), "}"]
