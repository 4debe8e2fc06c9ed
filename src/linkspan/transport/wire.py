"""What both ends of the direct path agree on: header names, error mapping, codecs, and the caps on what a peer may send."""

from __future__ import annotations

import itertools
import json
import math
import re
import zlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from connectrpc.code import Code as WireCode
from connectrpc.codec import proto_json_codec
from connectrpc.errors import ConnectError
from protobuf import Message, Registry
from protobuf.wkt import Any as AnyMessage

from linkspan.errors import Code, Error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectrpc.errors import ErrorDetail
    from protobuf import DescFile

__all__ = [
    "CONTENT_LENGTH",
    "MAX_MESSAGE_BYTES",
    "TIMEOUT",
    "BinaryCodec",
    "CappedGzip",
    "JsonCodec",
    "connect_error",
    "error_body",
    "error_from",
    "format_timeout",
    "http_status",
    "registry_of",
]

TIMEOUT: Final = "connect-timeout-ms"
CONTENT_LENGTH: Final = b"content-length"
MAX_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""The limit that gRPC and connectrpc share (bytes of one message, decompressed)."""

_TIMEOUT_DIGITS: Final = 9_999_999_999  # https://connectrpc.com/docs/protocol: at most 10 ASCII digits
_GZIP_RATIO: Final = 100
_GZIP_FREE_BYTES: Final = 64 * 1024
_GZIP_WINDOW: Final = 31  # zlib: 15 bits of window, gzip header and trailer expected

_MAX_DEPTH: Final = 100  # levels of nesting, as in protobuf's own decoders
_JSON_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # the closing quote is optional, else time is quadratic
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))

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

M = TypeVar("M", bound=Message)
Unwritable: TypeAlias = "Callable[[Message, Exception], ConnectError]"


def format_timeout(seconds: float) -> str:
    """Return the value of `connect-timeout-ms`: whole milliseconds, rounded up so that a short timeout is not none."""
    if seconds >= _TIMEOUT_DIGITS / 1000:
        return str(_TIMEOUT_DIGITS)
    return str(math.ceil(seconds * 1000))


def http_status(code: Code) -> int:
    """Return the HTTP status that Connect gives a code."""
    return _STATUS[code]


def error_body(code: Code, message: str) -> bytes:
    """Return a Connect error as JSON, for requests that are refused before connectrpc sees them."""
    return json.dumps({"code": code.value, "message": message}, ensure_ascii=False).encode()


def connect_error(error: Error) -> ConnectError:
    """Put an error into connectrpc's form; its details become `google.protobuf.Any`."""
    return ConnectError(WireCode(error.code.value), error.message, error.details)


def error_from(error: ConnectError, registry: Registry) -> Error:
    """Read connectrpc's form; details of types that the registry knows come back as messages, others stay `Any`."""
    details: Sequence[ErrorDetail] = error.details
    message = error.message or "The peer gave no reason: look into its log."
    return Error(Code(error.code.value), str(message), [_unpacked(detail, registry) for detail in details])


def _unpacked(detail: ErrorDetail, registry: Registry) -> Message:
    try:
        message = detail.value(registry)
    except ValueError:
        message = None
    if message is not None:
        return message
    return AnyMessage(type_url=f"type.googleapis.com/{detail.type_name}", value=detail.message_bytes)


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


class BinaryCodec:
    """Protobuf's binary format. Errors are coded, and name the type but never the payload.

    `unreadable` is the code of bytes that are not a message: the caller's fault on a server, the peer's on a client.
    `unwritable` makes the error for a message with wrong values: the caller's fault on a client, a bug on a server.
    """

    def __init__(self, unreadable: WireCode, unwritable: Unwritable | None = None) -> None:
        self._unreadable = unreadable
        self._unwritable = unwritable or _misfilled

    def name(self) -> str:
        """Return the part after `application/` of the content type."""
        return "proto"

    def encode(self, message: Message) -> bytes:
        """Return the message's bytes."""
        try:
            return message.to_binary()
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise self._unwritable(message, error) from error

    def decode(self, data: bytes | bytearray, message_class: type[M]) -> M:
        """Return the message that the bytes hold."""
        try:
            return message_class.from_binary(data)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ConnectError(self._unreadable, _unreadable(message_class, "protobuf", "")) from error


class JsonCodec:
    """ProtoJSON, unknown fields ignored. Errors as in `BinaryCodec`."""

    def __init__(self, unreadable: WireCode, unwritable: Unwritable | None = None) -> None:
        self._unreadable = unreadable
        self._unwritable = unwritable or _misfilled
        self._codec: Any = proto_json_codec()

    def name(self) -> str:
        """Return the part after `application/` of the content type."""
        return "json"

    def encode(self, message: Message) -> bytes:
        """Return the message's JSON text."""
        try:
            encoded: bytes = self._codec.encode(message)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise self._unwritable(message, error) from error
        return encoded

    def decode(self, data: bytes | bytearray, message_class: type[M]) -> M:
        """Return the message that the text holds."""
        if _too_deep(data):
            where = f" (more than {_MAX_DEPTH} levels)"
            raise ConnectError(self._unreadable, _unreadable(message_class, "JSON", where))
        try:
            decoded: M = self._codec.decode(data, message_class)
        except json.JSONDecodeError as error:
            where = f" (syntax, line {error.lineno} column {error.colno})"
            raise ConnectError(self._unreadable, _unreadable(message_class, "JSON", where)) from error
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ConnectError(self._unreadable, _unreadable(message_class, "JSON", "")) from error
        return decoded


def _too_deep(data: bytes | bytearray) -> bool:
    """Tell whether JSON nests deeper than protobuf allows: protobuf-py 0.7 overflows its stack on a deep list where an object belongs."""
    if data.count(b"[") + data.count(b"{") <= _MAX_DEPTH:
        return False
    brackets = _JSON_STRING.sub(b"", data).translate(None, _NO_BRACKETS)
    steps = (1 if bracket in b"[{" else -1 for bracket in brackets)
    return max(itertools.accumulate(steps), default=0) > _MAX_DEPTH


def _unreadable(message_class: type[Message], form: str, where: str) -> str:
    return (
        f"Reading '{message_class.desc().type_name}' from {form} failed{where}: send the fields that the contract names, with their types."
    )


def _misfilled(message: Message, _error: Exception) -> ConnectError:
    return ConnectError(WireCode.INVALID_ARGUMENT, f"Writing a '{type(message).__name__}' failed: give its fields values of their types.")


class CappedGzip:
    """Gzip that a peer may use for requests, with bounded memory: a cap on the size and, above 64 KiB, on the ratio."""

    def name(self) -> str:
        """Return the name of the content coding."""
        return "gzip"

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return the data as a gzip member."""
        packer = zlib.compressobj(level=6, wbits=_GZIP_WINDOW)
        return packer.compress(data) + packer.flush()

    def decompress(self, data: bytes | bytearray | memoryview, read_max_bytes: int | None = None) -> bytes:
        """Return the data of the one gzip member; never holds more than the caps allow."""
        cap = MAX_MESSAGE_BYTES if read_max_bytes is None else read_max_bytes
        cap = min(cap, max(_GZIP_FREE_BYTES, len(data) * _GZIP_RATIO))
        unpacker = zlib.decompressobj(wbits=_GZIP_WINDOW)
        try:
            plain = unpacker.decompress(data, cap + 1)
        except zlib.error as error:
            raise ConnectError(WireCode.INVALID_ARGUMENT, "Decompressing the request failed: send one valid gzip member.") from error
        if len(plain) > cap:
            raise ConnectError(WireCode.RESOURCE_EXHAUSTED, f"Decompressed request exceeds {cap} bytes: send smaller messages.")
        if not unpacker.eof or unpacker.unused_data:
            raise ConnectError(WireCode.INVALID_ARGUMENT, "Decompressing the request failed: send one valid gzip member.")
        return plain
