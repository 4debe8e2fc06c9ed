"""CloudEvents on Kafka, binary mode: our canonical block of headers to Kafka's pairs and back.

The Kafka binding (CloudEvents 1.0, kafka-protocol-binding §3.2) names attributes `ce_id`, puts `datacontenttype` into `content-type`
and writes values as plain UTF-8; the block is percent-encoded ASCII. Empty attributes, which the specification does not know, stay
off the wire. Other headers pass as they are; bytes that a block cannot hold are percent-encoded.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes, unquote_to_bytes

from linkspan.errors import Code, Error

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["from_kafka", "to_kafka"]

_FIRST = b"\r\nce-id: "
_SAFE = "!#$&'()*+,-./:;<=>?@[]^_`{|}~"
_UNSAFE = re.compile(rb'[^\x21-\x7e]|["%]')
_NOT_IN_A_BLOCK = re.compile(rb"[^\x20-\x7e]")
_CONTENT_TYPE = "content-type"
_DATA_TYPE = "ce-datacontenttype"
_KEPT_EMPTY = (("ce-partitionkey", "ce-time"), ("traceparent", "ce-partitionkey"))
"""Attributes that our block has also where they are empty, each with the one before it."""


def to_kafka(block: bytes, sequence: int = 0) -> list[tuple[str, bytes]]:
    """Return a canonical block as Kafka's headers, the sequence behind it. Raises `Error(INVALID_ARGUMENT)` for what is no block."""
    cut = block.find(_FIRST)
    pairs = _head(block[: cut + 2]).copy() if cut >= 0 else []
    for line in (block[cut + 2 :] if cut >= 0 else block).split(b"\r\n"):
        if line:
            _add(pairs, line)
    if sequence:
        pairs.append(("ce_sequence", b"%d" % sequence))
    return pairs


@lru_cache(maxsize=1024)
def _head(block: bytes) -> list[tuple[str, bytes]]:
    """Translate the lines that are the same for every message of a type from a source."""
    pairs: list[tuple[str, bytes]] = []
    for line in block.split(b"\r\n"):
        if line:
            _add(pairs, line)
    return pairs


def _add(pairs: list[tuple[str, bytes]], line: bytes) -> None:
    name, colon, value = line.partition(b": ")
    if not colon:
        raise Error(Code.INVALID_ARGUMENT, "A header line has no name: write 'name: value'.")
    if name.startswith(b"ce-"):
        if value:
            if b"%" in value:
                value = unquote_to_bytes(value)
            kafka_name = _CONTENT_TYPE if name == b"ce-datacontenttype" else "ce_" + name[3:].decode("ascii", "replace")
            pairs.append((kafka_name, value))
    elif value or name != b"traceparent":
        pairs.append((name.decode("ascii", "replace"), value))


def from_kafka(headers: Sequence[tuple[str, bytes | None]] | None) -> bytes:
    """Return Kafka's headers as a canonical block, in their order."""
    if not headers:
        return b""
    names, values = zip(*headers, strict=True)
    layout = _layout(names)
    if layout is not None and None not in values and _UNSAFE.search(b"".join(values)) is None:
        return layout % values
    return _slowly(headers)


@lru_cache(maxsize=256)
def _layout(names: tuple[str, ...]) -> bytes | None:
    """Return the block's lines with a place for each value: messages of one type have the same names in the same order."""
    lines = _names(names)
    if any(_NOT_IN_A_BLOCK.search(line.encode()) or ":" in line or "%" in line for line in lines):
        return None
    text = "".join(f"{line}: %b\r\n" for line in lines)
    return _with_empty(text).encode()


def _names(names: tuple[str, ...]) -> list[str]:
    """Return names as the block has them: binary mode where `ce_specversion` is there, anything else as it is."""
    binary = "ce_specversion" in names
    return [
        _DATA_TYPE if binary and name.lower() == _CONTENT_TYPE else f"ce-{name[3:]}" if name.startswith("ce_") else name for name in names
    ]


def _with_empty(text: str) -> str:
    """Put back what stays off the wire where it is empty, so that our own block comes back byte for byte."""
    for name, before in _KEPT_EMPTY:
        if f"\r\n{name}: " not in text:
            start = text.find(f"\r\n{before}: ")
            if start >= 0:
                end = text.find("\r\n", start + 2) + 2
                text = f"{text[:end]}{name}: \r\n{text[end:]}"
    return text


def _slowly(headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    lines: list[str] = []
    for (_, value), name in zip(headers, _names(tuple(name for name, _ in headers)), strict=True):
        written = quote_from_bytes(name.encode(), safe=_SAFE.replace(":", "")) if not name.isascii() or not name.isprintable() else name
        lines.append(f"{written.replace(':', '%3A')}: {_written(name, value or b'')}\r\n")
    return _with_empty("".join(lines)).encode("ascii")


def _written(name: str, value: bytes) -> str:
    """Percent-encode an attribute wholly (CloudEvents NATS binding §3.1.3.2), another header only where a block cannot hold it."""
    encode = _UNSAFE.search(value) if name.startswith("ce-") else _NOT_IN_A_BLOCK.search(value)
    return quote_from_bytes(value, safe=_SAFE) if encode else value.decode("ascii")
