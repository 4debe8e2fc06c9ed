"""Confluent's wire format, opt-in per topic: which schema a payload has stands before it, or in a header.

Prefix: a zero byte, the schema id in four bytes, the path of the message in its file, the payload. Header: `__value_schema_id` with a
byte 1, the schema's GUID in 16 bytes and the same path; the payload stays as it is. The path is a count and so many indexes, zigzag
varints; a single 0 is written as an empty path (docs.confluent.io, "Wire format").
"""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from linkspan.brokers.kafka_registry import SchemaRegistry
from linkspan.errors import Code, Error, SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from protobuf import DescMessage, Message
    from protobuf.wkt.google.protobuf.descriptor_pb import DescriptorProto, FileDescriptorProto

__all__ = ["HEADER", "Confluent", "Framing", "framing_of", "read_path", "unframed", "written_path"]

logger = logging.getLogger("linkspan.kafka")

HEADER = "__value_schema_id"
_BY_ID, _BY_GUID = b"\x00", b"\x01"
_ID_END, _GUID_END = 5, 17
_MAX_PATH = 64
AGAIN = 1.0
"""Seconds until a registry that did not answer is asked again."""


@dataclass(frozen=True, slots=True)
class Confluent:
    """What a `KafkaBroker` frames: `topics` says how, `header` or `prefix`; `messages` are the classes that may be published there.

    Each message's file is registered under `<topic>-<type>` when its topic is first used. On consumption both forms are understood, of
    publishers that know nothing of CloudEvents too: type and id then come from the schema and the place.
    """

    registry: str
    topics: Mapping[str, str]
    messages: Iterable[type[Message[Any]]] = ()


def written_path(path: list[int]) -> bytes:
    """Write the path of a message in its file."""
    if path == [0]:
        return b"\x00"
    return b"".join(_varint(number << 1) for number in (len(path), *path))


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def read_path(data: bytes, at: int) -> tuple[list[int], int]:
    """Read a path, and return where it ends. Raises ValueError."""
    count, at = _read(data, at)
    if count > _MAX_PATH:
        raise ValueError(count)
    path: list[int] = []
    for _ in range(count):
        number, at = _read(data, at)
        path.append(number)
    return path or [0], at


def _read(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data) or shift > 28:  # noqa: PLR2004 - five bytes hold 32 bits
            raise ValueError(at)
        number |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:  # noqa: PLR2004 - the last byte
            break
    if number & 1:
        raise ValueError(number)
    return number >> 1, at


def unframed(data: bytes, header: bytes | None) -> tuple[int | str, list[int], bytes]:
    """Return schema (id, or GUID), path and payload. Raises ValueError for what is not framed."""
    if header is not None:
        if header[:1] != _BY_GUID or len(header) < _GUID_END:
            raise ValueError(len(header))
        path, _ = read_path(header, _GUID_END)
        return header[1:_GUID_END].hex(), path, data
    if data[:1] != _BY_ID or len(data) < _ID_END:
        raise ValueError(len(data))
    path, end = read_path(data, _ID_END)
    return int.from_bytes(data[1:_ID_END], "big"), path, data[end:]


def _path_of(message: DescMessage) -> list[int]:
    parent = message.parent
    among = message.file.messages if parent is None else parent.nested_messages
    index = next(place for place, each in enumerate(among) if each.type_name == message.type_name)
    return [index] if parent is None else [*_path_of(parent), index]


def _name_at(file: FileDescriptorProto, path: list[int]) -> str:
    names: list[str] = []
    among: list[DescriptorProto] = list(file.message_type)
    for index in path:
        names.append(among[index].name)
        among = list(among[index].nested_type)
    return ".".join(([file.package] if file.package else []) + names)


class Framing:
    """Frames what is published to some topics, and takes the frame off what is read from them."""

    def __init__(self, chosen: Confluent) -> None:
        wrong = [f"{topic}={form}" for topic, form in chosen.topics.items() if form not in {"header", "prefix"}]
        if wrong:
            raise SetupError(f"The Confluent framing '{wrong[0]}' is not known: use 'header' or 'prefix'.")
        self._registry = SchemaRegistry(chosen.registry)
        self._topics = dict(chosen.topics)
        self._messages = [cls.desc() for cls in chosen.messages]
        self._frames: dict[tuple[str, str], bytes] = {}
        self._names: dict[tuple[int | str, tuple[int, ...]], str] = {}

    def frames(self, topic: str) -> bool:
        """Tell whether a topic is framed."""
        return topic in self._topics

    async def prepare(self, topic: str) -> None:
        """Register the messages that may be published to a topic. Raises `Error` or `SetupError`."""
        package = topic.rpartition(".")[0]
        own = [each for each in self._messages if each.file.proto.package == package]
        await asyncio.to_thread(self._register, topic, own)

    def _register(self, topic: str, messages: list[DescMessage]) -> None:
        for message in messages:
            found = self._registry.register(f"{topic}-{message.type_name}", message.file)
            path = written_path(_path_of(message))
            if self._topics[topic] == "prefix":
                frame = _BY_ID + found.id.to_bytes(4, "big") + path
            elif found.guid:
                frame = _BY_GUID + bytes.fromhex(found.guid.replace("-", "")) + path
            else:
                raise SetupError("The schema registry gives no GUIDs: use 'prefix' for the topics of this broker.")
            self._frames[topic, message.type_name] = frame

    def frame(self, topic: str, headers: list[tuple[str, bytes]], data: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
        """Return headers and data with the schema named. Raises `Error(FAILED_PRECONDITION)` for a type that has none."""
        kind = next((value.decode() for name, value in headers if name == "ce_type"), "")
        frame = self._frames.get((topic, kind))
        if frame is None:
            text = f"Type '{kind}' has no schema for the framed topic '{topic}': name its class in Confluent(messages=...)."
            raise Error(Code.FAILED_PRECONDITION, text)
        if self._topics[topic] == "prefix":
            return headers, frame + data
        return [*headers, (HEADER, frame)], data

    def unwrap(self, message: Any, ending: Callable[[], bool]) -> None:
        """Take the frame off a message, in place; on the consumer's thread. What has none, or an unknown schema, stays as it is."""
        pairs: list[tuple[str, bytes]] = message.headers() or []
        headers = [(name, value) for name, value in pairs if name != HEADER]
        named = next((value for name, value in pairs if name == HEADER), None)
        try:
            schema, path, data = unframed(message.value() or b"", named)
        except ValueError:
            return
        if not any(name == "ce_type" for name, _ in headers):
            kind = self._name(schema, tuple(path), ending)
            if not kind:
                return
            headers = [*_described(message, kind), *headers]
        message.set_headers(headers)
        message.set_value(data)

    def _name(self, schema: int | str, path: tuple[int, ...], ending: Callable[[], bool]) -> str:
        """Return a message's type, asking until the registry answers; empty where it knows of none."""
        found = self._names.get((schema, path))
        while found is None and not ending():
            try:
                found = _name_at(self._registry.file(schema), list(path))
            except (Error, SetupError) as error:
                if isinstance(error, Error) and error.code is not Code.UNAVAILABLE:
                    return ""
                logger.warning("schema registry did not answer; asking again", extra={"reason": str(error)})
                threading.Event().wait(AGAIN)
            except IndexError:
                return ""
            else:
                self._names[schema, path] = found
        return found or ""


def framing_of(chosen: object) -> Framing | None:
    """Return the framing that a broker's option `confluent` asks for."""
    if chosen is None:
        return None
    if not isinstance(chosen, Confluent):
        raise SetupError("The Kafka option 'confluent' is not understood: give a linkspan.brokers.kafka_framing.Confluent.")
    return Framing(chosen)


def _described(message: Any, kind: str) -> list[tuple[str, bytes]]:
    """Return the attributes of an event whose publisher gave none: it is named by its place, which never changes."""
    pairs = [
        ("ce_specversion", b"1.0"),
        ("ce_type", kind.encode()),
        ("ce_source", f"kafka:{message.topic()}".encode()),
        ("content-type", b"application/protobuf"),
        ("ce_id", f"{message.partition()}-{message.offset()}".encode()),
    ]
    key: bytes = message.key() or b""
    return [*pairs, ("ce_partitionkey", key)] if key else pairs
