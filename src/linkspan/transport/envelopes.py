"""The Connect protocol's streams: messages in envelopes, the last of which ends the stream (https://connectrpc.com/docs/protocol)."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, Final, cast

from linkspan.errors import Code, Error
from linkspan.nesting import too_deep
from linkspan.transport.unary import read_error

if TYPE_CHECKING:
    from protobuf import Registry

__all__ = ["END", "STREAM_KIND", "EnvelopeBuffer", "read_end", "wrapped"]

STREAM_KIND: Final = "application/connect+proto"
END: Final = 0b10
_COMPRESSED: Final = 0b01
_PREFIX: Final = struct.Struct(">BI")
_CODES: Final = frozenset(code.value for code in Code)


def wrapped(message: bytes) -> bytes:
    """Return a message in its envelope."""
    return _PREFIX.pack(0, len(message)) + message


class EnvelopeBuffer:
    """Cuts what a peer sends into envelopes; holds what came and was not asked for yet.

    `where` names the peer in errors. An envelope that announces more than `max_bytes` is refused before it is collected.
    """

    __slots__ = ("_data", "_max_bytes", "where")

    def __init__(self, where: str, max_bytes: int) -> None:
        self._data = bytearray()
        self._max_bytes = max_bytes
        self.where = where

    def __len__(self) -> int:
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Add what came."""
        self._data += data

    def all(self) -> bytes:
        """Return everything, for what is no envelope after all."""
        return bytes(self._data)

    @property
    def ready(self) -> bool:
        """Tell whether `take` would return an envelope or raise."""
        data = self._data
        if len(data) < _PREFIX.size:
            return False
        length = int.from_bytes(data[1:5], "big")
        return length > self._max_bytes or len(data) >= _PREFIX.size + length

    def take(self) -> tuple[int, bytes] | None:
        """Return the flags and the message of the next envelope, None where it is not whole yet. Raises `Error`."""
        data = self._data
        if len(data) < _PREFIX.size:
            return None
        flags, length = _PREFIX.unpack_from(data)
        if flags & ~END:
            what = "compressed a message, which was not asked for" if flags == _COMPRESSED else "sent an envelope with unknown flags"
            raise Error(Code.INTERNAL, f"'{self.where}' {what}: it does not speak Connect properly.")
        if length > self._max_bytes:
            text = f"'{self.where}' sent a message of {length} bytes, above {self._max_bytes}: ask for less, or raise the limit."
            raise Error(Code.RESOURCE_EXHAUSTED, text)
        end = _PREFIX.size + length
        if len(data) < end:
            return None
        message = bytes(data[_PREFIX.size : end])
        del data[:end]
        return flags, message


def read_end(where: str, message: bytes, registry: Registry) -> Error | None:
    """Return the error with which a stream ends, None where it ended well. Raises `Error` for what cannot be read."""
    try:
        content: Any = None if too_deep(message) else json.loads(message)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        told = cast("dict[str, Any]", content).get("error")
        if told is None:
            return None
        if isinstance(told, dict):
            given = cast("dict[str, Any]", told)
            code = given.get("code")
            known = code if isinstance(code, str) and code in _CODES else Code.UNKNOWN.value
            try:
                return read_error(200, json.dumps({**given, "code": known}).encode(), registry)
            except ValueError:
                pass
    return Error(Code.INTERNAL, f"'{where}' ended the stream in a way that cannot be read: it does not speak Connect properly.")
