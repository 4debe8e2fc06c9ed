"""CloudEvents 1.0 attributes on the wire: how a message's headers are written and read, binary mode.

The canonical block is ASCII lines `name: value`, ended by CR LF, in one fixed order, so that our own messages are read by one
regular expression behind a head that repeats; foreign order, extra headers and HTTP-style spellings take the slow way. Attribute values are
percent-encoded as the CloudEvents NATS binding asks. Extension names are the official ones (`partitionkey`, `sequence`,
`correlationid`, `causationid`, `expirytime`, `traceparent`).
"""

from __future__ import annotations

import re
import zlib
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, unquote

import msgspec

from linkspan.attributes import MAX_KEY, Reference, check_attributes, has_forbidden, moment
from linkspan.errors import Code, Error
from linkspan.structured import STRUCTURED, is_structured, payload, read_attributes

__all__ = ["LANES", "MAX_KEY", "Envelope", "Reference", "claim", "lane_of", "moment", "read", "referring", "render"]

LANES = 64
"""Lanes of a topic; fixed at creation, a key always has the same one."""

MAX_HEADERS = 16 * 1024
"""A block longer than this many bytes is refused before it is parsed."""

PROTOBUF = "application/protobuf"
JSON = "application/json"

_SAFE = "!#$&'()*+,-./:;<=>?@[]^_`{|}~"
_QUOTED_PAIR = re.compile(r"\\(.)")
_FIRST = "\r\nce-id: "
_DATAREF = "ce-dataref"
_HEAD = re.compile(
    r"ce-specversion: 1\.0\r\nce-type: ([^\x00-\x1f\x7f]+)\r\nce-source: ([^\x00-\x1f\x7f]+)\r\nce-datacontenttype: ([^\x00-\x1f\x7f]+)"
)
_BEHIND = (
    r"(@+)\r\nce-time: (@+)\r\nce-partitionkey: (@*)\r\ntraceparent: (@*)\r\n"
    r"(?:ce-correlationid: (@*)\r\n)?(?:ce-causationid: (@*)\r\n)?"
    r"(?:ce-expirytime: (@+)\r\n)?(?:ce-sequence: ([0-9]{1,18})\r\n)?"
)
_REST = re.compile(_BEHIND.replace("@", "[ -~]"))  # all that ASCII has but control characters, said in the way that is read fastest


class Envelope(msgspec.Struct, gc=False):
    """A message's attributes. `time` and `expires` are RFC 3339 text, empty where absent; `sequence` is 0 where absent.

    The first message of a flow has neither `correlation`, which is its own id, nor `causation`.
    """

    id: str
    source: str
    type: str
    key: str = ""
    trace: str = ""
    time: str = ""
    correlation: str = ""
    causation: str = ""
    expires: str = ""
    sequence: int = 0
    content_type: str = PROTOBUF
    reference: Reference | None = None


def claim(service: str, source: str, id: str) -> tuple[str, str]:  # noqa: A002 - the CloudEvents word
    """Return what a service claims in its inbox for a message: services that share a store must not take each other's."""
    return f"{service}<{source}", id


def lane_of(key: str) -> int:
    """Return the lane of a key: CRC-32 of its UTF-8 bytes, modulo 64."""
    return zlib.crc32(key.encode()) & (LANES - 1)


def encode_value(value: str) -> str:
    """Percent-encode an attribute value (CloudEvents NATS binding §3.1.3.2); plain ASCII passes as it is."""
    return value if _is_plain(value) else quote(value, safe=_SAFE)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and not (" " in text or '"' in text or "%" in text)


def timestamp(now: float) -> str:
    """Return seconds since 1970 as RFC 3339 text in UTC with milliseconds."""
    seconds, millis = divmod(int(now * 1000), 1000)
    return f"{_until_seconds(seconds)}.{millis:03d}Z"


@lru_cache(maxsize=4)
def _until_seconds(seconds: int) -> str:
    """Write all but the fraction, once a second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def prefix(type_name: str, source: str, content_type: str = PROTOBUF) -> str:
    """Return the head of the block, the same for every message of a type from a source: computed once."""
    return f"ce-specversion: 1.0\r\nce-type: {type_name}\r\nce-source: {encode_value(source)}\r\nce-datacontenttype: {content_type}\r\n"


def render(head: str, envelope: Envelope) -> bytes:
    """Write the canonical block behind a `prefix`; the sequence is left to the broker's adapter."""
    id_, key, correlation, causation = envelope.id, envelope.key, envelope.correlation, envelope.causation
    if not _is_plain(f"{id_}{key}{correlation}{causation}"):
        id_, key, correlation, causation = map(encode_value, (id_, key, correlation, causation))
    rest = f"ce-correlationid: {correlation}\r\n" if correlation else ""
    if causation:
        rest += f"ce-causationid: {causation}\r\n"
    if envelope.expires:
        rest += f"ce-expirytime: {envelope.expires}\r\n"
    text = f"{head}ce-id: {id_}\r\nce-time: {envelope.time}\r\nce-partitionkey: {key}\r\ntraceparent: {envelope.trace}\r\n{rest}"
    return text.encode("ascii")


def referring(block: bytes, reference: Reference) -> bytes:
    """Return a canonical block that says where the content is kept; in front, so that the quick way leaves it to the thorough one."""
    lines = f"\r\nce-dataref: {encode_value(reference.uri)}\r\nce-datalength: {reference.length}\r\nce-datadigest: {reference.digest}"
    return block.replace(_FIRST.encode(), f"{lines}{_FIRST}".encode(), 1)


def read(block: bytes, data: bytes = b"") -> Envelope:
    """Read a block of headers, and the attributes in `data` where the headers say that they are there (structured mode).

    Raises `Error(INVALID_ARGUMENT)` naming what is missing or malformed, never its value.
    """
    if len(block) > MAX_HEADERS:
        raise Error(Code.INVALID_ARGUMENT, f"The headers have {len(block)} bytes: at most {MAX_HEADERS} are accepted.")
    try:
        text = block.decode("ascii")
    except UnicodeDecodeError as error:
        raise Error(Code.INVALID_ARGUMENT, "A header is not ASCII: percent-encode values as the CloudEvents binding says.") from error
    cut = text.find(_FIRST)
    match = _REST.match(text, cut + len(_FIRST)) if cut >= 0 else None
    head = _head(text[:cut]) if match else None
    if match is None or head is None or (not data and _DATAREF in text):
        return _read_any(text, data)
    kind, source, content = head
    id_, time, key, trace, correlation, causation, expires, sequence = match.groups()
    if "%" in text:
        id_, key, correlation, causation = (_decoded(value or "") for value in (id_, key, correlation, causation))
        if has_forbidden(f"{id_}{key}{correlation}{causation}"):
            raise Error(Code.INVALID_ARGUMENT, "An attribute holds a control character: take it out.")
    if len(id_) > MAX_KEY or len(key) > MAX_KEY:
        raise Error(Code.INVALID_ARGUMENT, f"The id or key has more than {MAX_KEY} characters: use a shorter one.")
    if expires:
        moment(expires)
    return Envelope(id_, source, kind, key, trace, time, correlation or "", causation or "", expires or "", int(sequence or 0), content)


def read_behind(head: str, text: str, begin: int, end: int) -> Envelope | None:
    """Read a block whose head and rest lie apart: the head up to `ce-id: `, the rest between two places of a text.

    The text is ASCII without `%`. Returns None where `read` is to be asked: for a foreign block, or one that it refuses.
    """
    kind = _head(head)
    match = _REST.match(text, begin, end) if kind is not None and end - begin + len(head) < MAX_HEADERS - len(_FIRST) else None
    if match is None or kind is None:
        return None
    id_, time, key, trace, correlation, causation, expires, sequence = match.groups()
    if expires or len(id_) > MAX_KEY or len(key) > MAX_KEY:
        return None
    return Envelope(id_, kind[1], kind[0], key, trace, time, correlation or "", causation or "", "", int(sequence or 0), kind[2])


@lru_cache(maxsize=1024)
def _head(text: str) -> tuple[str, str, str] | None:
    """Read type, source and content type, which are the same for every message of a type from a source; None for a foreign block."""
    match = _HEAD.fullmatch(text)
    if match is None or has_forbidden(source := _decoded(match[2])):
        return None
    return (match[1], source, match[3])


def headers_of(text: str) -> dict[str, str]:
    """Return a block's headers by lower-case name, as sent; a later one of the same name wins."""
    found: dict[str, str] = {}
    for line in text.split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip().lower()] = value.strip()
    return found


def _read_any(text: str, data: bytes) -> Envelope:
    """Read headers in any order, from any CloudEvents publisher: the NATS binding, HTTP's way, or structured mode."""
    found = headers_of(text)
    content_type = found.get("content-type", "")
    if is_structured(content_type):
        attributes, content_type = read_attributes(data, content_type), STRUCTURED
    else:
        attributes = {name[3:]: _decoded(value) for name, value in found.items() if name.startswith("ce-")}
        content_type = attributes["datacontenttype"] = attributes.get("datacontenttype", "") or content_type or PROTOBUF
    check_attributes(attributes)
    sequence = attributes.get("sequence", "")
    reference = None
    if attributes.get("dataref") and not (payload(data)[0] if content_type is STRUCTURED else data):
        reference = Reference(attributes["dataref"], attributes.get("datalength", ""), attributes.get("datadigest", ""))
        content_type = attributes.get("datacontenttype", "") or PROTOBUF
    return Envelope(
        attributes["id"],
        attributes["source"],
        attributes["type"],
        attributes.get("partitionkey", ""),
        found.get("traceparent", "") or attributes.get("traceparent", ""),
        attributes.get("time", ""),
        attributes.get("correlationid", ""),
        attributes.get("causationid", ""),
        attributes.get("expirytime", ""),
        int(sequence) if sequence.isascii() and sequence.isdecimal() and len(sequence) <= 18 else 0,  # noqa: PLR2004 - what fits a signed 64-bit
        content_type,
        reference,
    )


def _decoded(value: str) -> str:
    """Undo quoting (RFC 9110 §5.6.4), then percent-encoding (CloudEvents HTTP binding §3.1.3.2, NATS binding §3.1.3.2)."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = _QUOTED_PAIR.sub(r"\1", value[1:-1])
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError as error:
        raise Error(Code.INVALID_ARGUMENT, "A header is percent-encoded, but not as UTF-8: encode it anew.") from error
