"""The Connect protocol's unary calls, both directions: headers, forms of messages, errors (https://connectrpc.com/docs/protocol).

What connectrpc does for everything else is done here for the one shape that nearly every call has, so that neither end
needs connectrpc for it (ADR 6). `linkspan.transport.wire` gives the same to connectrpc.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from protobuf import Message, Registry, message_to_json_value
from protobuf.wkt import Any as AnyMessage

from linkspan.errors import Code, Error
from linkspan.nesting import MAX_DEPTH, too_deep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from protobuf import DescFile

__all__ = [
    "CONTENT_LENGTH",
    "FORMS",
    "MAX_MESSAGE_BYTES",
    "PROTO",
    "TIMEOUT",
    "TIMEOUT_DIGITS",
    "UNWRITABLE",
    "Form",
    "error_body",
    "format_timeout",
    "http_status",
    "misfilled",
    "read_binary",
    "read_error",
    "read_json",
    "registry_of",
    "unpacked",
    "write_binary",
    "write_json",
]

TIMEOUT: Final = "connect-timeout-ms"
TIMEOUT_DIGITS: Final = 10
CONTENT_LENGTH: Final = b"content-length"
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""The limit that gRPC and connectrpc share (bytes of one message, decompressed)."""
UNWRITABLE: Final = (TypeError, ValueError, OverflowError, AttributeError)
"""What protobuf-py raises for a message with values of wrong types."""

_MOST_MILLISECONDS: Final = 10**TIMEOUT_DIGITS - 1
_NO_REASON: Final = "The peer gave no reason: look into its log."

# https://connectrpc.com/docs/protocol#error-codes
_STATUS: Final = {
    Code.CANCELED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
# https://connectrpc.com/docs/protocol#http-to-error-code
_CODE_OF_STATUS: Final = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}

M = TypeVar("M", bound=Message)


# --- headers


def format_timeout(seconds: float) -> str:
    """Return the value of `connect-timeout-ms`: whole milliseconds, rounded up so that a short timeout is not none."""
    if seconds >= _MOST_MILLISECONDS / 1000:
        return str(_MOST_MILLISECONDS)
    return str(math.ceil(seconds * 1000))


def http_status(code: Code) -> int:
    """Return the HTTP status that Connect gives a code."""
    return _STATUS[code]


# --- messages


def write_binary(message: Message) -> bytes:
    """Return the message's bytes; raises one of `UNWRITABLE`."""
    return message.to_binary()


def read_binary(data: bytes | bytearray, message_class: type[M], code: Code) -> M:
    """Return the message that the bytes hold. Raises `Error(code)`, which names the type but never the payload."""
    try:
        return message_class.from_binary(data)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _unreadable(code, message_class, "protobuf", "") from error


def write_json(message: Message, *, proto_names: bool = False) -> bytes:
    """Return the message's ProtoJSON text, fields by their names in JSON or in the contract; raises one of `UNWRITABLE`."""
    return message.to_json(registry=_known_types(), use_proto_field_name=proto_names).encode()


def read_json(data: bytes | bytearray, message_class: type[M], code: Code) -> M:
    """Return the message that the ProtoJSON text holds, unknown fields ignored. Raises as `read_binary`."""
    if too_deep(data):
        raise _unreadable(code, message_class, "JSON", f" (more than {MAX_DEPTH} levels)")
    try:
        return message_class.from_json(data, registry=_known_types(), ignore_unknown_fields=True)
    except json.JSONDecodeError as error:
        raise _unreadable(code, message_class, "JSON", f" (syntax, line {error.lineno} column {error.colno})") from error
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _unreadable(code, message_class, "JSON", "") from error


Write: TypeAlias = "Callable[[Message], bytes]"
Read: TypeAlias = "Callable[[bytes, type[Any], Code], Any]"


@dataclass(frozen=True, slots=True)
class Form:
    """How messages are written: the name after `application/`, and both directions."""

    name: str
    write: Write
    read: Read


PROTO: Final = Form("proto", write_binary, read_binary)
FORMS: Final = {f"application/{form.name}": form for form in (PROTO, Form("json", write_json, read_json))}
"""By content type."""


@functools.cache
def _known_types() -> Registry:
    """Return the types that JSON may hold in an `Any`: the well-known ones, as in connectrpc."""
    from protobuf.wkt.google.protobuf import (  # noqa: PLC0415 - costs time to load, and only JSON needs them
        api_pb,
        cpp_features_pb,
        descriptor_pb,
        duration_pb,
        empty_pb,
        field_mask_pb,
        go_features_pb,
        java_features_pb,
        source_context_pb,
        struct_pb,
        timestamp_pb,
        type_pb,
        wrappers_pb,
    )

    modules = (api_pb, cpp_features_pb, descriptor_pb, duration_pb, empty_pb, field_mask_pb, go_features_pb)
    more = (java_features_pb, source_context_pb, struct_pb, timestamp_pb, type_pb, wrappers_pb)
    return Registry(*(module.desc() for module in (*modules, *more)))


def _unreadable(code: Code, message_class: type[Message], form: str, where: str) -> Error:
    name = message_class.desc().type_name
    return Error(code, f"Reading '{name}' from {form} failed{where}: send the fields that the contract names, with their types.")


def misfilled(message: Message) -> Error:
    """Return what to tell a caller whose request holds values of wrong types."""
    return Error(Code.INVALID_ARGUMENT, f"Writing a '{type(message).__name__}' failed: give its fields values of their types.")


# --- errors


def error_body(code: Code, message: str, details: Sequence[Message] = ()) -> bytes:
    """Return a Connect error as JSON, to the byte as connectrpc writes it. Raises what a misfilled detail raises."""
    content: dict[str, Any] = {"code": code.value, "message": message}
    if details:
        content["details"] = [_detail(detail) for detail in details]
    return json.dumps(content, ensure_ascii=False).encode()


def _detail(message: Message) -> dict[str, Any]:
    packed = message if isinstance(message, AnyMessage) else AnyMessage.pack(message)
    written: dict[str, Any] = {
        "type": packed.type_url.removeprefix("type.googleapis.com/"),
        "value": b64encode(packed.value).decode().rstrip("="),
    }
    if packed is not message:
        with contextlib.suppress(ValueError):
            written["debug"] = message_to_json_value(message)
    return written


def read_error(status: int, body: bytes, registry: Registry) -> Error:
    """Read the body of a response that is not 200; an empty one gives what the status alone says.

    Details of types that the registry knows come back as messages, others as `Any`. Raises `ValueError` where the body is no Connect error.
    """
    try:
        content = json.loads(body) if body else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return Error(_CODE_OF_STATUS.get(status, Code.UNKNOWN), f"The peer answered with HTTP status {status} and no reason: look there.")
    known = cast("Mapping[str, Any]", content)
    text = known.get("code")
    if text:
        codes = {code.value: code for code in Code}
        code = codes.get(text, Code.UNAVAILABLE) if isinstance(text, str) else Code.UNAVAILABLE
    else:
        code = _CODE_OF_STATUS.get(status, Code.UNKNOWN)
    written: Any = known.get("details") or []
    if not isinstance(written, list):
        raise ValueError("details are no list")  # noqa: TRY004 - the peer's fault, not the caller's
    details = [_read_detail(detail, registry) for detail in cast("Iterable[Any]", written)]
    return Error(code, str(known.get("message") or _NO_REASON), [detail for detail in details if detail is not None])


def _read_detail(detail: Any, registry: Registry) -> Message | None:
    try:
        name, value = detail.get("type"), detail.get("value")
        if name is None or value is None:
            return None
        packed = AnyMessage(type_url=f"type.googleapis.com/{name}", value=b64decode(value + "==="))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError("a detail is no Connect error detail") from error
    return unpacked(packed, registry)


def unpacked(packed: AnyMessage, registry: Registry) -> Message:
    """Return the message in an `Any` if the registry knows its type, else the `Any`."""
    kind = registry.message(packed.type_url.removeprefix("type.googleapis.com/"))
    if kind is None:
        return packed
    try:
        return packed.unpack(kind) or packed
    except ValueError:
        return packed


def registry_of(*messages: type[Message]) -> Registry:
    """Return the types of the messages' files and of all files that those import."""
    seen: dict[str, DescFile] = {}
    queue = [message.desc().file for message in messages]
    while queue:
        file = queue.pop()
        if file.name not in seen:
            seen[file.name] = file
            queue.extend(file.dependencies)
    return Registry(*seen.values())
