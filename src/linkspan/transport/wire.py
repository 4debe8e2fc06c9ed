"""What connectrpc needs of us: our forms, errors and compression, under its own interfaces."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from connectrpc.code import Code as WireCode
from connectrpc.errors import ConnectError
from protobuf import Message
from protobuf.wkt import Any as AnyMessage

from linkspan.errors import Code, Error
from linkspan.transport.unary import (
    CONTENT_LENGTH,
    MAX_MESSAGE_BYTES,
    TIMEOUT,
    UNWRITABLE,
    error_body,
    format_timeout,
    http_status,
    misfilled,
    read_binary,
    read_json,
    registry_of,
    unpacked,
    write_binary,
    write_json,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectrpc.errors import ErrorDetail
    from protobuf import Registry

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

_GZIP_RATIO: Final = 100
_GZIP_FREE_BYTES: Final = 64 * 1024
_GZIP_WINDOW: Final = 31  # zlib: 15 bits of window, gzip header and trailer expected

M = TypeVar("M", bound=Message)
Unwritable: TypeAlias = "Callable[[Message, Exception], Error]"


def connect_error(error: Error) -> ConnectError:
    """Put an error into connectrpc's form; its details become `google.protobuf.Any`."""
    return ConnectError(WireCode(error.code.value), error.message, error.details)


def error_from(error: ConnectError, registry: Registry) -> Error:
    """Read connectrpc's form; details of types that the registry knows come back as messages, others stay `Any`."""
    details: Sequence[ErrorDetail] = error.details
    message = error.message or "The peer gave no reason: look into its log."
    return Error(Code(error.code.value), str(message), [_unpacked(detail, registry) for detail in details])


def _unpacked(detail: ErrorDetail, registry: Registry) -> Message:
    return unpacked(AnyMessage(type_url=f"type.googleapis.com/{detail.type_name}", value=detail.message_bytes), registry)


class BinaryCodec:
    """Protobuf's binary format. Errors are coded, and name the type but never the payload.

    `unreadable` is the code of bytes that are not a message: the caller's fault on a server, the peer's on a client.
    `unwritable` makes the error for a message with wrong values: the caller's fault on a client, a bug on a server.
    """

    _name, _write, _read = "proto", staticmethod(write_binary), staticmethod(read_binary)

    def __init__(self, unreadable: WireCode, unwritable: Unwritable | None = None) -> None:
        self._unreadable = Code(unreadable.value)
        self._unwritable = unwritable or _misfilled

    def name(self) -> str:
        """Return the part after `application/` of the content type."""
        return self._name

    def encode(self, message: Message) -> bytes:
        """Return the message as it travels."""
        try:
            return self._write(message)
        except UNWRITABLE as error:
            raise connect_error(self._unwritable(message, error)) from error

    def decode(self, data: bytes | bytearray, message_class: type[M]) -> M:
        """Return the message that the bytes hold."""
        try:
            return self._read(data, message_class, self._unreadable)
        except Error as error:
            raise connect_error(error) from error


class JsonCodec(BinaryCodec):
    """ProtoJSON, unknown fields ignored. Errors as in `BinaryCodec`."""

    _name, _write, _read = "json", staticmethod(write_json), staticmethod(read_json)


def _misfilled(message: Message, _error: Exception) -> Error:
    return misfilled(message)


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
