"""Files that contracts import and that nobody should have to fetch: our options, and those of others that we read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorProto, FileDescriptorSet

from linkspan.contracts.proto_text import ProtoText
from linkspan.errors import SetupError
from linkspan.http_rule import ANNOTATIONS_FILE
from linkspan.options import OPTIONS_FILE, FieldRules, FileRules, MessageRules, MethodRules
from linkspan.rules import schema

if TYPE_CHECKING:
    from protobuf import DescFile

__all__ = ["OPTIONS_COMMENTS", "known_texts"]

OPTIONS_COMMENTS = {f"linkspan.{rules.__name__}": rules.__doc__ or "" for rules in (FieldRules, FileRules, MessageRules, MethodRules)}
"""What `linkspan/options.proto` says about its messages."""


def known_texts() -> dict[str, str]:
    """Return the texts of `linkspan/options.proto`, `google/api/*.proto` and, where protovalidate is installed, `buf/validate/*.proto`."""
    files: dict[str, FileDescriptorProto] = {}
    for file in _known():
        _add(file, files)
    printer = ProtoText(FileDescriptorSet(file=list(files.values())), OPTIONS_COMMENTS)
    return {name: printer.file(name) for name in files if not name.startswith("google/protobuf/")}


def _known() -> list[DescFile]:
    try:
        return [OPTIONS_FILE, ANNOTATIONS_FILE, schema().desc()]
    except SetupError:  # protovalidate is an extra
        return [OPTIONS_FILE, ANNOTATIONS_FILE]


def _add(file: DescFile, files: dict[str, FileDescriptorProto]) -> None:
    for dependency in file.dependencies:
        _add(dependency, files)
    files.setdefault(file.name, file.proto)
