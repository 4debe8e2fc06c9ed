"""One message as a `.proto` text that stands alone: what it needs from other packages is declared beside it.

Names of messages do not travel, numbers do: such a text decodes the same bytes. AsyncAPI embeds it, where nothing can be imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from protobuf import DescEnum, DescMessage
from protobuf.wkt.google.protobuf.descriptor_pb import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldOptions,
    FileDescriptorProto,
    FileDescriptorSet,
    MessageOptions,
)

from linkspan.contracts.descriptors import all_messages
from linkspan.contracts.proto_text import ProtoText

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from protobuf import DescFile

__all__ = ["payload_proto"]

_ROOT: Final = "@RootNode"
"""How AsyncAPI's parser for protobuf is told which message is meant."""


def payload_proto(message: DescMessage, comments: Mapping[str, str]) -> str:
    """Return the text for one message, with the types that it needs and without options; Google's own types are imported."""
    types, imported = _needed(message)
    names = _names(types, message.file.proto.package)
    file = FileDescriptorProto(name="payload.proto", package=message.file.proto.package, syntax="proto3", dependency=sorted(imported))
    for desc in types:
        if isinstance(desc, DescMessage):
            file.message_type.append(_alone(DescriptorProto.from_binary(desc.proto.to_binary()), desc.type_name, names))
        else:
            file.enum_type.append(_bare(EnumDescriptorProto.from_binary(desc.proto.to_binary()), names[desc.type_name]))
    said = {_moved(name, names): text for name, text in comments.items()}
    root = message.type_name
    said[root] = f"{said[root]}\n{_ROOT}" if root in said else _ROOT
    said.pop(file.package, "")
    return ProtoText(FileDescriptorSet(file=[*(each.proto for each in imported.values()), file]), said).file(file.name)


def _needed(message: DescMessage) -> tuple[list[DescMessage | DescEnum], dict[str, DescFile]]:
    """Return the outermost types that a message needs, itself first, and Google's files by their names."""
    found: dict[str, DescMessage | DescEnum] = {}
    imported: dict[str, DescFile] = {}
    waiting: list[DescMessage | DescEnum] = [message]
    while waiting:
        desc = _outermost(waiting.pop(0))
        if desc.file.proto.package == "google.protobuf":
            imported[desc.file.name] = desc.file
        elif desc.type_name not in found:
            found[desc.type_name] = desc
            waiting.extend(_used([desc] if isinstance(desc, DescMessage) else []))
    return list(found.values()), imported


def _outermost(desc: DescMessage | DescEnum) -> DescMessage | DescEnum:
    while desc.parent is not None:
        desc = desc.parent
    return desc


def _used(messages: Iterable[DescMessage]) -> Iterator[DescMessage | DescEnum]:
    for message in all_messages(messages):
        for field in message.fields:
            value: Any = field.value
            for part in ("message", "enum", "element", "value"):
                used = getattr(value, part, None)
                if isinstance(used, DescMessage | DescEnum):
                    yield used


def _names(types: Iterable[DescMessage | DescEnum], package: str) -> dict[str, str]:
    """Return new full names: types of other packages move into this one, under their full name if theirs is taken."""
    listed = list(types)
    taken = {desc.name for desc in listed if desc.file.proto.package == package}
    names: dict[str, str] = {}
    for desc in listed:
        own = desc.file.proto.package == package
        name = desc.name if own or desc.name not in taken else desc.type_name.replace(".", "_")
        taken.add(name)
        names[desc.type_name] = f"{package}.{name}"
    return names


def _moved(name: str, names: Mapping[str, str]) -> str:
    """Return the new name of a type or of what is declared inside it."""
    outer = name
    while outer and outer not in names:
        outer = outer.rpartition(".")[0]
    return names[outer] + name.removeprefix(outer) if outer else name


def _alone(proto: DescriptorProto, full_name: str, names: Mapping[str, str]) -> DescriptorProto:
    """Change a copy of a message: new names, no options but those that the wire depends on."""
    proto.name = names.get(full_name, full_name).rpartition(".")[2]
    is_entry = proto.options is not None and proto.options.map_entry
    proto.options = MessageOptions(map_entry=True) if is_entry else None
    for field in proto.field:
        packed = field.options.packed if field.options is not None and field.options.has_field("packed") else None
        field.options = None if packed is None else FieldOptions(packed=packed)
        if field.type_name:
            field.type_name = f".{_moved(field.type_name[1:], names)}"
    for oneof in proto.oneof_decl:
        oneof.options = None
    for enum in proto.enum_type:
        _bare(enum, enum.name)
    for nested in proto.nested_type:
        _alone(nested, f"{full_name}.{nested.name}", names)
    return proto


def _bare(proto: EnumDescriptorProto, name: str) -> EnumDescriptorProto:
    proto.name = name.rpartition(".")[2]
    proto.options = None
    for value in proto.value:
        value.options = None
    return proto
