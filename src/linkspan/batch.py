"""Batches: many messages of one topic in one broker message, compressed with zstd (ADR 22).

The broker sees one message; whoever reads it gets the single ones back, each with the header block and the bytes that it would have
had by itself. The content, before compression, is columns, little-endian:

    u8 version (1) | u8 0 | u16 heads | u32 messages
    u16 length of each head | u16 head of each message | u32 length of each rest | u32 length of each body
    heads | rests | bodies

A head is what the header blocks of one type have in common, up to the line `ce-id: `; a rest is what follows these characters. With an
empty head the rest is the whole block. So names and constants stand once, and what is alike lies side by side.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

from linkspan.contract import Contract
from linkspan.envelope import Envelope, prefix, read_behind, render, timestamp
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Outgoing
from linkspan.structured import media_type
from linkspan.zstd import Packer, unpacked

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BATCH", "MAX_EVENTS", "NAME", "TYPE", "Batches", "Single", "dictionaries_of", "is_batch", "joined", "pack", "singles"]

BATCH: Final = "application/vnd.linkspan.batch+zstd"
"""The content type of a batch."""
TYPE: Final = "linkspan.batch.v1"
"""The type in a batch's `ce-type`."""
NAME: Final = "batch"
"""The name in its place, where a message has its type's."""
MAX_EVENTS: Final = 1000
"""The most messages in a batch."""
MAX_CONTENT: Final = 4 * 1024 * 1024
"""The most bytes that a batch may have when it is unpacked."""
FREE: Final = 1024 * 1024
"""Bytes of content that are read whatever the ratio; above it, a batch may grow to `MAX_RATIO` times its size."""
MAX_RATIO: Final = 100
MAX_HEAD: Final = 4096
"""The longest head in bytes: it stands once in a batch and is repeated for each message when that is unpacked."""

_VERSION: Final = 1
_FIXED: Final = struct.Struct("<BBHI")
_SPLIT: Final = b"\r\nce-id: "


@dataclass(frozen=True, slots=True)
class Batches:
    """Let a service publish in batches: `Service("orders", Orders, batches=Batches())`.

    Whoever reads with Linkspan gets single messages, as before; other CloudEvents readers do not understand a batch.

    Attributes:
        topics: The topics to which it does, such as `shop.orders.v1.events`; by default those of the events that it owns.
        events: The most messages in one batch.
        size: The most bytes of one batch before compression; a larger message goes by itself.
        mixed: Let messages of all lanes share a batch: fuller ones, sooner. They all travel in one lane then, so that of each service that
            reads these topics one instance does the work: right where there is but one, as with SQLite.
    """

    topics: Sequence[str] = ()
    events: int = 500
    size: int = 256 * 1024
    mixed: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.topics, str):
            raise SetupError(f"Batches has a text as topics: write topics=['{self.topics}'].")
        for topic in self.topics:
            if not topic.endswith((".events", ".commands")):
                raise SetupError(f"Batches names '{topic}', which is no topic: write '<package>.events' or '<package>.commands'.")
        if not 1 <= self.events <= MAX_EVENTS:
            raise SetupError(f"Batches cannot hold {self.events} messages: 1 to {MAX_EVENTS} fit.")
        if not 0 < self.size <= FREE:
            raise SetupError(f"Batches cannot have {self.size} bytes: write at most {FREE}.")


class Single(msgspec.Struct, gc=False):
    """One message of a batch: its header block, its bytes and, where they were read by the way, its attributes."""

    headers: bytes
    data: bytes
    envelope: Envelope | None = None


def is_batch(content_type: str) -> bool:
    """Tell whether a message says that it is a batch, of whatever version."""
    return media_type(content_type).startswith("application/vnd.linkspan.batch")


def dictionaries_of(topic: str) -> Sequence[bytes]:
    """Return the zstd dictionaries that the contract of a topic's package has, the one to write with first."""
    contract = Contract.of(topic.rpartition(".")[0])
    return () if contract is None else contract.dictionaries


def pack(messages: Sequence[Outgoing], packer: Packer, now: float) -> Outgoing:
    """Make one message of some of a lane's, in their order; the same ones give the same id, so that a copy is recognised."""
    first = messages[0]
    id_ = f"batch-{blake2b(chr(10).join([message.id for message in messages]).encode(), digest_size=16).hexdigest()}"
    source = _source(first.headers)
    headers = render(_head(source), Envelope(id_, source, TYPE, time=timestamp(now)))
    return Outgoing(first.topic, NAME, first.lane, id_, "", headers, packer.packed(joined(messages)))


def joined(messages: Sequence[Outgoing]) -> bytes:
    """Return the content of a batch before it is compressed: what a dictionary is trained with, too."""
    heads: dict[bytes, int] = {}
    which: list[int] = []
    rests: list[bytes] = []
    for message in messages:
        head, found, rest = message.headers.partition(_SPLIT)
        if not found or len(head) > MAX_HEAD:
            head, rest = b"", message.headers
        which.append(heads.setdefault(head, len(heads)))
        rests.append(b"%bce-sequence: %d\r\n" % (rest, message.sequence) if message.sequence else rest)
    bodies = [message.data for message in messages]
    count = len(messages)
    columns: tuple[bytes, ...] = (
        _FIXED.pack(_VERSION, 0, len(heads), count),
        struct.pack(f"<{len(heads)}H{count}H{count}I{count}I", *map(len, heads), *which, *map(len, rests), *map(len, bodies)),
        *heads,
        *rests,
        *bodies,
    )
    return b"".join(columns)


@cache
def _head(source: str) -> str:
    return prefix(TYPE, source, BATCH)


def _source(headers: bytes) -> str:
    """Return who sent a message of ours, as it stands in its header block; a batch's messages have one sender."""
    begin = headers.find(b"\r\nce-source: ") + 13
    return headers[begin : headers.find(b"\r\n", begin)].decode()


def singles(data: bytes, dictionaries: Sequence[bytes] = ()) -> list[Single]:
    """Return the messages of a batch, in their order. Raises `Error` for what is no batch of ours, before it has cost much memory."""
    content = unpacked(data, min(MAX_CONTENT, max(FREE, MAX_RATIO * len(data))), dictionaries)
    if content[:1] != b"\x01":
        raise Error(Code.INVALID_ARGUMENT, "The batch has a version that is not known here: deploy a newer Linkspan, then redrive.")
    try:
        return _columns(content)
    except (struct.error, IndexError):
        raise _wrong() from None


def _columns(content: bytes) -> list[Single]:
    _, zero, heads, count = _FIXED.unpack_from(content)
    if zero or not 0 < heads <= count <= MAX_EVENTS:
        raise _wrong()
    table = struct.Struct(f"<{heads}H{count}H{count}I{count}I")
    numbers: tuple[int, ...] = table.unpack_from(content, _FIXED.size)
    lengths, which, rests, bodies = numbers[:heads], numbers[heads : heads + count], numbers[-2 * count : -count], numbers[-count:]
    begin = _FIXED.size + table.size
    body = begin + sum(lengths) + sum(rests)
    if body + sum(bodies) != len(content) or max(lengths) > MAX_HEAD:
        raise _wrong()
    known: list[tuple[bytes, str]] = []
    for length in lengths:
        head = content[begin : begin + length]
        known.append((head + _SPLIT, head.decode("latin-1")) if length else (b"", ""))
        begin += length
    found: list[Single] = []
    text, at = content[begin:body].decode("latin-1"), 0
    plain = text.isascii() and "%" not in text
    for number, rest, length in zip(which, rests, bodies, strict=True):
        head, named = known[number]
        envelope = read_behind(named, text, at, at + rest) if plain else None
        found.append(Single(head + content[begin + at : begin + at + rest], content[body : body + length], envelope))
        at += rest
        body += length
    return found


def _wrong() -> Error:
    text = f"The batch's numbers do not fit its content, or it has more than {MAX_EVENTS} messages: send it anew."
    return Error(Code.INVALID_ARGUMENT, text)
