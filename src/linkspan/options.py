"""Our options on fields, messages and methods, as they stand in exported `.proto` files and in descriptors.

In proto-first contracts they are written as `import "linkspan/options.proto";` and `[(linkspan.field).key = true]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from protobuf import Enum, Extension, Message, ScalarType, _codegen
from protobuf.wkt import FileDescriptorProto
from protobuf.wkt.google.protobuf import descriptor_pb
from protobuf.wkt.google.protobuf.descriptor_pb import DescriptorProto, FieldDescriptorProto

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from protobuf import DescFile

__all__ = [
    "OPTIONS_FILE",
    "FieldRules",
    "FileRules",
    "MessageRules",
    "MethodRules",
    "ext_field",
    "ext_file",
    "ext_message",
    "ext_method",
    "link_file",
]

# From the range that protobuf leaves to single organisations (50000-99999, descriptor.proto).
_EXTENSION_NUMBER: Final = 81_520

Label = FieldDescriptorProto.Label
FieldType = FieldDescriptorProto.Type


class FieldRules(Message[Any]):
    """Rules of one field: `key` is the order key, `pii` marks personal data."""

    __slots__ = ("key", "pii")

    if TYPE_CHECKING:

        def __init__(self, *, key: bool = False, pii: bool = False) -> None: ...

        key: bool
        pii: bool


class FileRules(Message[Any]):
    """Rules of one contract: `owner` is the team that answers for it."""

    __slots__ = ("owner",)

    if TYPE_CHECKING:

        def __init__(self, *, owner: str = "") -> None: ...

        owner: str


class MessageRules(Message[Any]):
    """Rules of one message: `event` says that it is a fact that others may react to."""

    __slots__ = ("event",)

    if TYPE_CHECKING:

        def __init__(self, *, event: bool = False) -> None: ...

        event: bool


class MethodRules(Message[Any]):
    """Rules of one operation; times are in seconds, 0 means that none is declared."""

    __slots__ = ("answer", "budget", "cache", "command", "expires", "staleness")

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            command: bool = False,
            staleness: float = 0.0,
            budget: float = 0.0,
            answer: str = "",
            expires: float = 0.0,
            cache: float = 0.0,
        ) -> None: ...

        command: bool
        staleness: float
        budget: float
        answer: str
        expires: float
        cache: float


ext_field: Final[Extension[Any, FieldRules]] = Extension()
ext_file: Final[Extension[Any, FileRules]] = Extension()
ext_message: Final[Extension[Any, MessageRules]] = Extension()
ext_method: Final[Extension[Any, MethodRules]] = Extension()


Linkable: TypeAlias = type[Message[Any]] | type[Enum] | Extension[Any, Any]


def link_file(proto: FileDescriptorProto, dependencies: Sequence[DescFile], classes: Mapping[str, Linkable]) -> DescFile:
    """Link existing classes to their descriptors, by their names inside the package.

    protobuf-py has no public call for it: this is the one that every generated module makes.
    """
    return _codegen.file_desc(proto.to_binary(), dependencies, classes)  # pyright: ignore[reportUnknownMemberType]  # untyped in protobuf-py


def _message(name: str, **fields: ScalarType) -> DescriptorProto:
    declared = [
        FieldDescriptorProto(name=n, number=i, label=Label.OPTIONAL, type=FieldType(int(scalar)), json_name=n)
        for i, (n, scalar) in enumerate(fields.items(), 1)
    ]
    return DescriptorProto(name=name, field=declared)


def _extension(name: str, extendee: str, type_name: str) -> FieldDescriptorProto:
    return FieldDescriptorProto(
        name=name,
        number=_EXTENSION_NUMBER,
        label=Label.OPTIONAL,
        type=FieldType.MESSAGE,
        type_name=f".linkspan.{type_name}",
        extendee=f".google.protobuf.{extendee}",
        json_name=name,
    )


def _link() -> DescFile:
    text, number, flag = ScalarType.STRING, ScalarType.DOUBLE, ScalarType.BOOL
    proto = FileDescriptorProto(
        name="linkspan/options.proto",
        package="linkspan",
        syntax="proto3",
        dependency=["google/protobuf/descriptor.proto"],
        message_type=[
            _message("FieldRules", key=flag, pii=flag),
            _message("FileRules", owner=text),
            _message("MessageRules", event=flag),
            _message("MethodRules", command=flag, staleness=number, budget=number, answer=text, expires=number, cache=number),
        ],
        extension=[
            _extension("field", "FieldOptions", "FieldRules"),
            _extension("file", "FileOptions", "FileRules"),
            _extension("message", "MessageOptions", "MessageRules"),
            _extension("method", "MethodOptions", "MethodRules"),
        ],
    )
    classes: dict[str, Linkable] = {rules.__name__: rules for rules in (FieldRules, FileRules, MessageRules, MethodRules)}
    classes.update({"field": ext_field, "file": ext_file, "message": ext_message, "method": ext_method})
    return link_file(proto, [descriptor_pb.desc()], classes)


OPTIONS_FILE: Final = _link()
