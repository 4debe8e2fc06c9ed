"""One form for a set of descriptors, whatever the order in which a program declares and imports."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

if TYPE_CHECKING:
    from protobuf.wkt.google.protobuf.descriptor_pb import DescriptorProto, FileDescriptorProto

__all__ = ["canonical"]


def canonical(files: FileDescriptorSet) -> FileDescriptorSet:
    """Return the same contracts in the order of their names, imports first, without comments and places of a source."""
    copied = FileDescriptorSet.from_binary(files.to_binary())
    by_name = {file.name: file for file in copied.file}
    ordered: dict[str, FileDescriptorProto] = {}

    def add(name: str) -> None:
        if name in by_name and name not in ordered:
            file = by_name[name]
            for imported in sorted(file.dependency):
                add(imported)
            ordered[name] = file

    for name in sorted(by_name):
        add(name)
    for file in ordered.values():
        _order(file)
    return FileDescriptorSet(file=list(ordered.values()))


def _order(file: FileDescriptorProto) -> None:
    file.source_code_info = None
    file.message_type.sort(key=attrgetter("name"))
    file.enum_type.sort(key=attrgetter("name"))
    file.service.sort(key=attrgetter("name"))
    for service in file.service:
        service.method.sort(key=attrgetter("name"))
    for message in file.message_type:
        _order_message(message)


def _order_message(message: DescriptorProto) -> None:
    message.field.sort(key=attrgetter("number"))
    message.nested_type.sort(key=attrgetter("name"))
    message.enum_type.sort(key=attrgetter("name"))
    for nested in message.nested_type:
        _order_message(nested)
