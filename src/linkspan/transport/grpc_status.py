"""Errors and headers as gRPC writes them: a status code, a message, and a `google.rpc.Status` with the details."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc
from protobuf import Message
from protobuf.wkt import Any as AnyMessage, FileDescriptorProto
from protobuf.wkt.google.protobuf import any_pb
from protobuf.wkt.google.protobuf.descriptor_pb import DescriptorProto, FieldDescriptorProto

from linkspan.errors import Code, Error
from linkspan.options import link_file
from linkspan.transport.unary import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from protobuf import Registry

__all__ = ["CODES", "DETAILS", "Metadata", "error_from_grpc", "headers_of", "metadata_of", "status_of"]

Metadata: TypeAlias = "tuple[tuple[str, str | bytes], ...]"

DETAILS: Final = "grpc-status-details-bin"
CODES: Final = {code: grpc.StatusCode[code.name if code is not Code.CANCELED else "CANCELLED"] for code in Code}
_CODE_OF: Final = {status: code for code, status in CODES.items()}
_MOST_MESSAGE: Final = 2 * 1024
"""Characters of a message: peers refuse a whole answer whose headers exceed 8 KiB, and would lose the code with it."""
_MOST_DETAILS: Final = 4 * 1024
"""Bytes of details, for the same reason."""
_NO_REASON: Final = "The peer gave no reason: look into its log."


class Status(Message[Any]):
    """google.rpc.Status (https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto)."""

    __slots__ = ("code", "details", "message")

    if TYPE_CHECKING:

        def __init__(self, *, code: int = 0, message: str = "", details: Sequence[AnyMessage] = ()) -> None: ...

        code: int
        message: str
        details: list[AnyMessage]


def _link() -> None:
    kind, label = FieldDescriptorProto.Type, FieldDescriptorProto.Label
    fields = [
        FieldDescriptorProto(name="code", number=1, label=label.OPTIONAL, type=kind.INT32, json_name="code"),
        FieldDescriptorProto(name="message", number=2, label=label.OPTIONAL, type=kind.STRING, json_name="message"),
        FieldDescriptorProto(
            name="details", number=3, label=label.REPEATED, type=kind.MESSAGE, type_name=".google.protobuf.Any", json_name="details"
        ),
    ]
    file = FileDescriptorProto(
        name="google/rpc/status.proto",
        package="google.rpc",
        syntax="proto3",
        dependency=["google/protobuf/any.proto"],
        message_type=[DescriptorProto(name="Status", field=fields)],
    )
    link_file(file, [any_pb.desc()], {"Status": Status})


_link()


def status_of(error: Error) -> tuple[grpc.StatusCode, str, Metadata]:
    """Return an error as gRPC sends it: code, message and trailing metadata. Raises what a misfilled detail raises."""
    status, message = CODES[error.code], error.message[:_MOST_MESSAGE]
    if not error.details:
        return status, message, ()
    details = [each if isinstance(each, AnyMessage) else AnyMessage.pack(each) for each in error.details]
    while sum(len(each.value) + len(each.type_url) for each in details) > _MOST_DETAILS:
        details.pop()
    packed = Status(code=status.value[0], message=message, details=details)
    return status, message, ((DETAILS, packed.to_binary()),)


def error_from_grpc(status: grpc.StatusCode, message: str | None, trailers: Iterable[tuple[str, str | bytes]], registry: Registry) -> Error:
    """Read an error; details of types that the registry knows come back as messages, others as `Any`."""
    packed = next((value for name, value in trailers if name == DETAILS and isinstance(value, bytes)), b"")
    try:
        details = [unpacked(each, registry) for each in Status.from_binary(packed).details]
    except (TypeError, ValueError, OverflowError, RecursionError):
        details = []  # the code counts more than what a peer garbled
    return Error(_CODE_OF.get(status, Code.UNKNOWN), message or _NO_REASON, details)


def headers_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """Return metadata as headers: binary values in base64 (unpadded, as Connect writes them), repeated ones joined by commas."""
    headers: dict[str, str] = {}
    for name, value in metadata or ():
        text = value if isinstance(value, str) else base64.b64encode(value).decode().rstrip("=")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def metadata_of(headers: Mapping[str, str]) -> Metadata:
    """Return headers as metadata. Raises `ValueError` for a `-bin` header that is no base64."""
    return tuple((name, _binary(value) if name.endswith("-bin") else value) for name, value in headers.items())


def _binary(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("a binary header is no base64") from error
