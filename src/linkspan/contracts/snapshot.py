"""What a set of descriptors declares, by full name: the form in which two versions of contracts are compared."""

from __future__ import annotations

from dataclasses import dataclass, field as dataclass_field
from typing import TYPE_CHECKING, Final

from protobuf.wkt.google.protobuf.descriptor_pb import FieldDescriptorProto, FileDescriptorSet

from linkspan.contracts.features import Features, features_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from protobuf import Registry
    from protobuf.wkt.google.protobuf.descriptor_pb import (
        DescriptorProto,
        EnumDescriptorProto,
        FileDescriptorProto,
        MethodDescriptorProto,
        ServiceDescriptorProto,
    )

__all__ = ["EnumShape", "FieldShape", "MessageShape", "MethodShape", "ServiceShape", "Snapshot", "nested_name"]

NOT_OURS: Final = ("google.protobuf", "google.api", "buf.validate", "linkspan")
"""Packages that travel along as imports; their makers answer for them."""

_Type = FieldDescriptorProto.Type
_Label = FieldDescriptorProto.Label


@dataclass(frozen=True, slots=True)
class FieldShape:
    """A field: `full_name` of itself, `message` it is in or extends, and its options resolved for its syntax or edition."""

    full_name: str
    message: str
    proto: FieldDescriptorProto
    features: Features
    oneof: str
    in_map_entry: bool
    is_map: bool

    @property
    def type(self) -> FieldDescriptorProto.Type:
        """Return the type on the wire: a message in delimited encoding is a group."""
        if self.proto.type == _Type.MESSAGE and self.features.delimited and not self.is_map and not self.in_map_entry:
            return _Type.GROUP
        return self.proto.type

    @property
    def cardinality(self) -> str:
        """Return 'map', 'repeated', 'required' or 'single'."""
        if self.is_map:
            return "map"
        if self.proto.label == _Label.REPEATED:
            return "repeated"
        return "required" if self.proto.label == _Label.REQUIRED or self.features.required else "single"


@dataclass(frozen=True, slots=True)
class MessageShape:
    """A message; map entries are messages too."""

    full_name: str
    package: str
    file: FileDescriptorProto
    proto: DescriptorProto
    features: Features
    fields: dict[int, FieldShape]


@dataclass(frozen=True, slots=True)
class EnumShape:
    """An enum; `values` maps a number to its names, of which there are many where aliases are allowed."""

    full_name: str
    package: str
    proto: EnumDescriptorProto
    features: Features
    values: dict[int, tuple[str, ...]]

    @property
    def numbers(self) -> dict[str, int]:
        """Return the number of each name."""
        return {value.name: value.number for value in self.proto.value}


@dataclass(frozen=True, slots=True)
class MethodShape:
    """An operation as its service declares it."""

    full_name: str
    proto: MethodDescriptorProto


@dataclass(frozen=True, slots=True)
class ServiceShape:
    """A service with its operations by name."""

    full_name: str
    package: str
    methods: dict[str, MethodShape]


@dataclass(slots=True)
class Snapshot:
    """All files of a version, by full names. What is `imported` from others travels in the same set, but is not compared."""

    source: FileDescriptorSet
    files: dict[str, FileDescriptorProto] = dataclass_field(default_factory=dict[str, "FileDescriptorProto"])
    packages: set[str] = dataclass_field(default_factory=set[str])
    imported: set[str] = dataclass_field(default_factory=set[str])
    messages: dict[str, MessageShape] = dataclass_field(default_factory=dict[str, MessageShape])
    enums: dict[str, EnumShape] = dataclass_field(default_factory=dict[str, EnumShape])
    services: dict[str, ServiceShape] = dataclass_field(default_factory=dict[str, ServiceShape])
    extensions: dict[tuple[str, int], FieldShape] = dataclass_field(default_factory=dict[tuple[str, int], FieldShape])
    _registry: Registry | None = None

    @classmethod
    def of(cls, source: FileDescriptorSet) -> Snapshot:
        """Read a set of files: those to compare, and what they import."""
        made = cls(source)
        for file in source.file:
            if file.package in NOT_OURS:
                made.imported.add(file.package)
            else:
                made._add_file(file)
        return made

    @property
    def registry(self) -> Registry:
        """Return the set's own classes, which read options that this program does not know."""
        if self._registry is None:
            self._registry = self.source.to_registry()
        return self._registry

    def fields(self) -> Iterator[FieldShape]:
        """Walk all fields, then all extensions."""
        for message in self.messages.values():
            yield from message.fields.values()
        yield from self.extensions.values()

    # --- reading

    def _add_file(self, file: FileDescriptorProto) -> None:
        features = features_of(file)
        self.files[file.name] = file
        self.packages.add(file.package)
        self._add_types(file.package, file, file.message_type, file.enum_type, features)
        self._add_extensions(file.package, file.extension, features)
        for service in file.service:
            self._add_service(file.package, service)

    def _add_types(
        self,
        scope: str,
        file: FileDescriptorProto,
        messages: Iterable[DescriptorProto],
        enums: Iterable[EnumDescriptorProto],
        features: Features,
    ) -> None:
        for enum in enums:
            name = _join(scope, enum.name)
            values: dict[int, tuple[str, ...]] = {}
            for value in enum.value:
                values[value.number] = (*values.get(value.number, ()), value.name)
            own = features.within(enum.options.features if enum.options else None)
            self.enums[name] = EnumShape(name, file.package, enum, own, values)
        for message in messages:
            self._add_message(_join(scope, message.name), file, message, features)

    def _add_message(self, name: str, file: FileDescriptorProto, message: DescriptorProto, outer: Features) -> None:
        features = outer.within(message.options.features if message.options else None)
        is_entry = message.options is not None and message.options.map_entry
        entries = {f".{name}.{nested.name}" for nested in message.nested_type if nested.options is not None and nested.options.map_entry}
        shape = MessageShape(name, file.package, file, message, features, {})
        for field in message.field:
            oneof = "" if field.proto3_optional or not field.has_field("oneof_index") else message.oneof_decl[field.oneof_index].name
            shape.fields[field.number] = FieldShape(
                full_name=f"{name}.{field.name}",
                message=name,
                proto=field,
                features=features.within(field.options.features if field.options else None),
                oneof=oneof,
                in_map_entry=is_entry,
                is_map=field.type_name in entries,
            )
        self.messages[name] = shape
        self._add_types(name, file, message.nested_type, message.enum_type, features)
        self._add_extensions(name, message.extension, features)

    def _add_extensions(self, scope: str, fields: Iterable[FieldDescriptorProto], features: Features) -> None:
        for field in fields:
            own = features.within(field.options.features if field.options else None)
            extended = field.extendee.removeprefix(".")
            shape = FieldShape(_join(scope, field.name), extended, field, own, oneof="", in_map_entry=False, is_map=False)
            self.extensions[extended, field.number] = shape

    def _add_service(self, package: str, service: ServiceDescriptorProto) -> None:
        name = _join(package, service.name)
        methods = {method.name: MethodShape(f"{name}.{method.name}", method) for method in service.method}
        self.services[name] = ServiceShape(name, package, methods)


def _join(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name


def nested_name(full_name: str, package: str) -> str:
    """Return a type's name inside its package."""
    return full_name.removeprefix(f"{package}.") if package else full_name
