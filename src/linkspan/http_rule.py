"""The messages of `google/api/http.proto` and the method option of `google/api/annotations.proto`, as they stand in descriptors.

In proto-first contracts they are written as `import "google/api/annotations.proto";` and `option (google.api.http) = {...};`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from protobuf import Extension, Message, Oneof
from protobuf.wkt.google.protobuf import descriptor_pb
from protobuf.wkt.google.protobuf.descriptor_pb import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, OneofDescriptorProto

from linkspan.options import link_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from protobuf import DescFile

__all__ = ["ANNOTATIONS_FILE", "HTTP_FILE", "CustomHttpPattern", "HttpRule", "ext_http"]

_EXTENSION_NUMBER: Final = 72_295_728

Label = FieldDescriptorProto.Label
FieldType = FieldDescriptorProto.Type


class HttpRules(Message[Any]):
    """`google.api.Http`: rules kept beside the methods; read by no part of ours, here so that the file is whole."""

    __slots__ = ("fully_decode_reserved_expansion", "rules")


class CustomHttpPattern(Message[Any]):
    """A method that HttpRule has no field for."""

    __slots__ = ("kind", "path")

    if TYPE_CHECKING:

        def __init__(self, *, kind: str = "", path: str = "") -> None: ...

        kind: str
        path: str


class HttpRule(Message[Any]):
    """How a method maps to HTTP: `pattern` holds the HTTP method and the path template."""

    __slots__ = ("additional_bindings", "body", "pattern", "response_body", "selector")

    if TYPE_CHECKING:
        Pattern = Oneof[Literal["get", "put", "post", "delete", "patch"], str] | Oneof[Literal["custom"], CustomHttpPattern]

        def __init__(
            self,
            *,
            selector: str = "",
            pattern: Pattern | None = None,
            body: str = "",
            response_body: str = "",
            additional_bindings: Sequence[HttpRule] = (),
        ) -> None: ...

        selector: str
        pattern: Pattern | None
        body: str
        response_body: str
        additional_bindings: list[HttpRule]


ext_http: Final[Extension[Any, HttpRule]] = Extension()


def _field(name: str, number: int, json_name: str = "", **given: Any) -> FieldDescriptorProto:
    settings: dict[str, Any] = {"type": FieldType.STRING, "label": Label.OPTIONAL, **given}
    return FieldDescriptorProto(name=name, number=number, json_name=json_name or name, **settings)


def _http_file() -> DescFile:
    message, rule = FieldType.MESSAGE, ".google.api.HttpRule"
    pattern = [_field(name, number, oneof_index=0) for number, name in enumerate(("get", "put", "post", "delete", "patch"), 2)]
    custom = _field("custom", 8, type=message, type_name=".google.api.CustomHttpPattern", oneof_index=0)
    bindings = _field("additional_bindings", 11, "additionalBindings", label=Label.REPEATED, type=message, type_name=rule)
    flag = _field("fully_decode_reserved_expansion", 2, "fullyDecodeReservedExpansion", type=FieldType.BOOL)
    rules = _field("rules", 1, label=Label.REPEATED, type=message, type_name=rule)
    fields = [_field("selector", 1), *pattern, custom, _field("body", 7), bindings, _field("response_body", 12, "responseBody")]
    proto = FileDescriptorProto(
        name="google/api/http.proto",
        package="google.api",
        syntax="proto3",
        message_type=[
            DescriptorProto(name="Http", field=[rules, flag]),
            DescriptorProto(name="HttpRule", field=fields, oneof_decl=[OneofDescriptorProto(name="pattern")]),
            DescriptorProto(name="CustomHttpPattern", field=[_field("kind", 1), _field("path", 2)]),
        ],
    )
    return link_file(proto, [], {"Http": HttpRules, "HttpRule": HttpRule, "CustomHttpPattern": CustomHttpPattern})


def _annotations_file() -> DescFile:
    option = _field("http", _EXTENSION_NUMBER, type=FieldType.MESSAGE, type_name=".google.api.HttpRule")
    option.extendee = ".google.protobuf.MethodOptions"
    proto = FileDescriptorProto(
        name="google/api/annotations.proto",
        package="google.api",
        syntax="proto3",
        dependency=["google/api/http.proto", "google/protobuf/descriptor.proto"],
        extension=[option],
    )
    return link_file(proto, [HTTP_FILE, descriptor_pb.desc()], {"http": ext_http})


HTTP_FILE: Final = _http_file()
ANNOTATIONS_FILE: Final = _annotations_file()
