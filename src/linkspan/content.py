"""From the bytes of a message to a request, by their content type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from linkspan.envelope import JSON, PROTOBUF
from linkspan.errors import Code, Error
from linkspan.message import MAX_SIZE, decode, decode_json, type_name
from linkspan.structured import STRUCTURED, media_type, payload

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["decode_content"]

_PROTOBUF_TOO: Final = frozenset({PROTOBUF, "application/x-protobuf", "application/vnd.google.protobuf"})
_MSGPACK: Final = frozenset({"application/msgpack", "application/x-msgpack", "application/vnd.msgpack"})


def decode_content(cls: type[Any], data: bytes, content_type: str, most: int = MAX_SIZE) -> Any:
    """Read a message: protobuf, ProtoJSON, either of them inside a structured CloudEvent, or MessagePack as if it were ProtoJSON.

    Raises `Error(INVALID_ARGUMENT)`, also for more than `most` bytes; it holds nothing of the content.
    """
    if content_type == PROTOBUF:
        return decode(cls, data, max_size=most)
    kind = media_type(content_type)
    if kind == STRUCTURED:
        data, content_type = payload(data)
        kind = media_type(content_type)
    reader = _reader(kind)
    if reader is None:
        text = f"A content type other than '{PROTOBUF}', '{JSON}' or 'application/msgpack' cannot be decoded: publish one of these."
        raise Error(Code.INVALID_ARGUMENT, text)
    return reader(cls, data, max_size=most)


def _reader(kind: str) -> Callable[..., Any] | None:
    if kind in _PROTOBUF_TOO:
        return decode
    if kind == JSON or (kind.endswith("+json") and kind != STRUCTURED):
        return decode_json
    return _decode_msgpack if kind in _MSGPACK else None


def _decode_msgpack(cls: type[Any], data: bytes, *, max_size: int) -> Any:
    if len(data) > max_size:
        raise Error(Code.INVALID_ARGUMENT, f"Message '{type_name(cls)}' has {len(data)} bytes: send at most {max_size}.")
    try:
        as_json = msgspec.json.encode(msgspec.msgpack.decode(data))
    except (msgspec.MsgspecError, RecursionError, TypeError, ValueError) as error:
        reason = type(error).__name__
        text = f"Message '{type_name(cls)}' could not be decoded ({reason}): send MessagePack of that type."
        raise Error(Code.INVALID_ARGUMENT, text) from None
    return decode_json(cls, as_json, max_size=2 * max_size)  # the same in JSON is longer
