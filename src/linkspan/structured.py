"""Structured CloudEvents: attributes and data in one JSON object (CloudEvents JSON event format 1.0.2).

The message stays as it came, also as a letter: its attributes are read when it arrives, its data when its handler is found.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

import msgspec

from linkspan.errors import Code, Error
from linkspan.nesting import too_deep

__all__ = ["STRUCTURED", "is_structured", "media_type", "payload", "read_attributes"]

STRUCTURED: Final = "application/cloudevents+json"
MAX_SIZE: Final = 4 * 1024 * 1024
"""Bytes of a whole event."""
MAX_ATTRIBUTES: Final = 16 * 1024
"""Bytes of all attributes together, as for headers."""

_NAME: Final = re.compile("[a-z0-9]{1,64}")
_DATA: Final = ("data", "data_base64")
_PROTOBUF: Final = "application/protobuf"
_JSON: Final = "application/json"
_INT32: Final = 2**31


def media_type(content_type: str) -> str:
    """Return a content type without parameters, lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_structured(content_type: str) -> bool:
    """Tell whether a message says that it is a CloudEvent as a whole."""
    return media_type(content_type).startswith("application/cloudevents")


def read_attributes(data: bytes, content_type: str) -> dict[str, str]:
    """Read the attributes as texts. Raises `Error(INVALID_ARGUMENT)`, which holds nothing of the content."""
    if media_type(content_type) != STRUCTURED:
        raise _wrong(f"Structured CloudEvents are read as '{STRUCTURED}': neither batches nor other formats are accepted.")
    found: dict[str, str] = {}
    size = 0
    for name, raw in _members(data).items():
        if name in _DATA:
            continue
        size += len(name) + len(memoryview(raw))
        if not _NAME.fullmatch(name) or size > MAX_ATTRIBUTES:
            raise _wrong(f"An attribute's name is not of a-z and 0-9, or all have more than {MAX_ATTRIBUTES} bytes: correct it.")
        text = _text(name, msgspec.json.decode(raw))
        if text is not None:
            found[name] = text
    return found


def payload(data: bytes) -> tuple[bytes, str]:
    """Return the data of an event and its content type. Raises `Error(INVALID_ARGUMENT)`."""
    members = _members(data)
    declared = members.get("datacontenttype")
    given: Any = msgspec.json.decode(declared) if declared is not None else None
    content_type = given if isinstance(given, str) else ""
    plain, encoded = (_present(members.get(name)) for name in _DATA)
    if plain is not None and encoded is not None:
        raise _wrong("The event has both 'data' and 'data_base64': send one.")
    if encoded is not None:
        return _decoded(encoded), content_type or _PROTOBUF
    if plain is None:
        return b"", _PROTOBUF
    kind = media_type(content_type or _JSON)
    if kind not in (_JSON, _PROTOBUF) and not kind.endswith("+json"):
        raise _wrong("The event has JSON data of another content type: send it as 'data_base64', or as JSON.")
    return bytes(plain), _JSON


def _members(data: bytes) -> dict[str, msgspec.Raw]:
    if len(data) > MAX_SIZE:
        raise _wrong(f"The event has {len(data)} bytes: send at most {MAX_SIZE}.")
    try:
        if too_deep(data):
            raise RecursionError  # noqa: TRY301 - answered below like any other text that cannot be read
        text = data.decode()  # msgspec looks at the members' own bytes only when they are read
        return msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise _wrong(f"The event is no JSON object ({type(error).__name__}): send a structured CloudEvent.") from None


def _present(raw: msgspec.Raw | None) -> bytes | None:
    text = None if raw is None else bytes(raw)
    return None if text == b"null" else text


def _text(name: str, value: object) -> str | None:
    """Return an attribute's canonical text (CloudEvents type system); null is the same as absent."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and -_INT32 <= value < _INT32:
        return str(value)
    raise _wrong(f"The attribute '{name}' is no text, boolean or 32-bit integer: correct the event.")


def _decoded(raw: bytes) -> bytes:
    try:
        text: Any = msgspec.json.decode(raw)
        return base64.b64decode(text if isinstance(text, str) else b"!", validate=True)
    except (binascii.Error, ValueError):
        raise _wrong("The event's 'data_base64' is no Base64 text: encode it as RFC 4648 says.") from None


def _wrong(text: str) -> Error:
    return Error(Code.INVALID_ARGUMENT, text)
