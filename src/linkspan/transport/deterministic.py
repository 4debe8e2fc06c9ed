"""The same bytes for equal messages, so that equal questions have one URL: protobuf leaves the order of a map's entries open."""

from __future__ import annotations

import functools
from typing import Any

from protobuf import DescMessage, Message, Oneof

__all__ = ["write_deterministic"]


def write_deterministic(message: Message[Any]) -> bytes:
    """Return the message's bytes with the entries of its maps in the order of their keys; raises as `write_binary`."""
    data = message.to_binary()
    cls = type(message)
    if not _has_map(cls.desc()):
        return data
    copy = cls.from_binary(data)
    _sort(copy)
    return copy.to_binary()


@functools.cache
def _has_map(desc: DescMessage) -> bool:
    seen: set[str] = set()
    queue = [desc]
    while queue:
        message = queue.pop()
        if message.type_name in seen:
            continue
        seen.add(message.type_name)
        for field in message.fields:
            value: Any = field.value
            if hasattr(value, "key"):
                return True
            inner: Any = getattr(value, "message", None) or getattr(value, "element", None)
            if isinstance(inner, DescMessage):
                queue.append(inner)
    return False


def _sort(value: Any) -> None:
    """Order the maps in a message, and in the messages that it holds."""
    kind: Any = value.__class__
    if kind is Oneof:
        _sort(value.value)
    elif kind is list:
        for element in value:
            _sort(element)
    elif kind is dict:
        for key in sorted(value, reverse=True):  # protobuf-py writes the last entry first
            value[key] = element = value.pop(key)
            _sort(element)
    elif issubclass(kind, Message):
        for member in value.desc().members:
            _sort(getattr(value, member.local_name))
