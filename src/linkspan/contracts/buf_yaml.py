"""The `buf.yaml` beside exported files: STANDARD lint, and which of its rules the contract's own names do not follow."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from linkspan.contract import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from protobuf.wkt.google.protobuf.descriptor_pb import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, ServiceDescriptorProto

__all__ = ["buf_yaml"]

_HEAD: Final = """# Written by `linkspan contracts export`.
version: v2
lint:
  use:
    - STANDARD
"""
_WHY: Final = "  # Rules that names of these contracts do not follow. Names travel, so they stay as they are.\n"
_BREAKING: Final = """breaking:
  use:
    - WIRE_JSON
"""
# Narrower than buf's own rules: a name that only nearly fits is listed, which changes nothing.
_PASCAL: Final = re.compile(r"([A-Z][a-z]+[0-9]*)+")
_SNAKE: Final = re.compile(r"[a-z]+(_[a-z]+)*")
_UPPER: Final = re.compile(r"[A-Z]+(_[A-Z]+)*")
_FOREIGN: Final = ("google", "buf")


def buf_yaml(files: Iterable[FileDescriptorProto]) -> str:
    """Return the text of `buf.yaml` for a folder with these files."""
    listed = list(files)
    foreign = sorted({file.name.partition("/")[0] for file in listed} & set(_FOREIGN))
    found: defaultdict[str, list[str]] = defaultdict(list)
    shared = _shared(listed)
    for file in listed:
        if file.name.partition("/")[0] not in _FOREIGN:
            for rule in _exceptions(file, shared):
                found[rule].append(file.name)
    text = _HEAD
    if foreign:
        text += "  ignore:\n" + "".join(f"    - {each}\n" for each in foreign)
    if found:
        text += _WHY + "  ignore_only:\n"
        text += "".join(f"    {rule}:\n" + "".join(f"      - {path}\n" for path in sorted(found[rule])) for rule in sorted(found))
    return text + _BREAKING


def _exceptions(file: FileDescriptorProto, shared: set[str]) -> set[str]:
    """Tell which rules of buf's STANDARD category the names may break; `shared` messages serve several operations."""
    rules: set[str] = set()
    if not VERSION.fullmatch(file.package.rpartition(".")[2]) or "." not in file.package:
        rules.add("PACKAGE_VERSION_SUFFIX")
    for service in file.service:
        rules.update(_service(service))
    if shared.intersection(
        each for service in file.service for method in service.method for each in (method.input_type, method.output_type)
    ):
        rules.add("RPC_REQUEST_RESPONSE_UNIQUE")
    for enum in file.enum_type:
        rules.update(_enum(enum))
    for message in file.message_type:
        rules.update(_message(message))
    return rules


def _shared(files: Iterable[FileDescriptorProto]) -> set[str]:
    methods = (method for file in files for service in file.service for method in service.method)
    used = Counter(each for method in methods for each in (method.input_type, method.output_type))
    return {name for name, count in used.items() if count > 1}


def _service(service: ServiceDescriptorProto) -> Iterator[str]:
    if not service.name.endswith("Service"):
        yield "SERVICE_SUFFIX"
    if not _PASCAL.fullmatch(service.name):
        yield "SERVICE_PASCAL_CASE"
    for method in service.method:
        if not _PASCAL.fullmatch(method.name):
            yield "RPC_PASCAL_CASE"
        for role, taken in (("Request", method.input_type), ("Response", method.output_type)):
            if taken.rpartition(".")[2] not in {f"{method.name}{role}", f"{service.name}{method.name}{role}"}:
                yield f"RPC_{role.upper()}_STANDARD_NAME"


def _enum(enum: EnumDescriptorProto) -> Iterator[str]:
    prefix = re.sub("([a-z])([A-Z])", r"\1_\2", enum.name).upper()
    if not _PASCAL.fullmatch(enum.name):
        yield "ENUM_PASCAL_CASE"
        yield "ENUM_VALUE_PREFIX"  # buf may cut such a name into other words
        yield "ENUM_ZERO_VALUE_SUFFIX"
    for value in enum.value:
        if value.number == 0 and not value.name.endswith("_UNSPECIFIED"):
            yield "ENUM_ZERO_VALUE_SUFFIX"
        if not value.name.startswith(f"{prefix}_"):
            yield "ENUM_VALUE_PREFIX"
        if not _UPPER.fullmatch(value.name):
            yield "ENUM_VALUE_UPPER_SNAKE_CASE"


def _message(message: DescriptorProto) -> Iterator[str]:
    if not _PASCAL.fullmatch(message.name) and not (message.options and message.options.map_entry):
        yield "MESSAGE_PASCAL_CASE"
    if any(not _SNAKE.fullmatch(field.name) for field in message.field):
        yield "FIELD_LOWER_SNAKE_CASE"
    if any(not _SNAKE.fullmatch(oneof.name) for oneof in message.oneof_decl):
        yield "ONEOF_LOWER_SNAKE_CASE"
    for enum in message.enum_type:
        yield from _enum(enum)
    for nested in message.nested_type:
        yield from _message(nested)
