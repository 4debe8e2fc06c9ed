"""Messages as JSON for people, with personal data masked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import protobuf

from linkspan.content import decode_content
from linkspan.errors import Error
from linkspan.message import traits_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from linkspan.envelope import Envelope

__all__ = ["MASK", "content", "masked", "shown_key"]

MASK = "***"


def masked(message: protobuf.Message[Any], *, raw: bool = False) -> Any:
    """Return a message as plain values; fields with personal data are `***` unless `raw`."""
    found: Any = json.loads(message.to_json())
    if not raw:
        _mask(message, found)
    return found


def _mask(message: protobuf.Message[Any], found: Any) -> None:
    if not isinstance(found, dict):  # a type with a JSON form of its own, such as a Timestamp
        return
    shown = cast("dict[str, Any]", found)
    pii = traits_of(type(message)).pii
    for name, attribute, value in _fields(message):
        if name not in shown:
            continue
        if attribute in pii:
            shown[name] = MASK
        else:
            for inner, below in _inside(value, shown[name]):
                _mask(inner, below)


def _fields(message: protobuf.Message[Any]) -> Iterator[tuple[str, str, Any]]:
    """Return what a message has: its name in JSON, the attribute that declares it, and its value."""
    for member in type(message).desc().members:
        value: Any = getattr(message, member.local_name)
        if isinstance(member, protobuf.DescOneof):
            chosen: Any = value
            if chosen is not None:
                yield from (
                    (field.json_name, member.local_name, chosen.value) for field in member.fields if field.local_name == chosen.field
                )
        else:
            yield member.json_name, member.local_name, value


def _inside(value: Any, shown: Any) -> Iterator[tuple[protobuf.Message[Any], Any]]:
    """Return the messages in a field, each with what is shown of it."""
    if isinstance(value, protobuf.Message):
        yield value, shown
        return
    kind: Any = getattr(value, "__class__", None)
    pairs: list[tuple[Any, Any]] = []
    if kind is list:
        pairs = list(zip(value, shown, strict=False))
    elif kind is dict:
        pairs = [(item, shown.get(str(key))) for key, item in value.items()]
    yield from ((item, below) for item, below in pairs if isinstance(item, protobuf.Message))


def content(cls: Any, envelope: Envelope, data: bytes, *, raw: bool = False) -> Any:
    """Return what a message says, or how many bytes it has where that cannot be told."""
    if cls is None:
        return f"{len(data)} bytes of a type that this app does not know"
    if envelope.reference is not None:
        return f"{envelope.reference.length} bytes in the blob place: {envelope.reference.uri}"
    try:
        return masked(decode_content(cls, data, envelope.content_type), raw=raw)
    except Error:
        return f"{len(data)} bytes that cannot be decoded"


def shown_key(cls: Any, envelope: Envelope, *, raw: bool = False) -> str:
    """Return the order key, masked where its field holds personal data or is not known."""
    if raw or not envelope.key:
        return envelope.key
    if cls is None:
        return MASK
    traits = traits_of(cls)
    return MASK if traits.key in traits.pii else envelope.key
