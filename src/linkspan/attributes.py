"""What a CloudEvents attribute may be, on whatever way it came in (CloudEvents 1.0.2, sections 3 and 4)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec

from linkspan.errors import Code, Error

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_KEY", "Reference", "check_attributes", "has_forbidden", "moment"]

MAX_KEY = 512
"""The longest key or id, in characters."""

REQUIRED: Final = ("id", "source", "type", "specversion")
_SHORT: Final = ("id", "partitionkey", "correlationid", "causationid")
_TIMES: Final = ("time", "expirytime")
_LEAP: Final = 60
_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}):([0-9]{2})(\.[0-9]{1,30})?(?:[Zz]|([+-])([0-9]{2}):([0-5][0-9]))"
)
# Controls, surrogates and the noncharacters of the basic plane: what no attribute may hold.
has_forbidden = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]").search


class Reference(msgspec.Struct, frozen=True, gc=False):
    """Where a message's content is kept, when it is not in the message: a URI, and what is to be found there. Not checked yet."""

    uri: str
    length: str
    digest: str


def check_attributes(attributes: Mapping[str, str]) -> None:
    """Refuse attributes that are missing, too long or malformed. Raises `Error(INVALID_ARGUMENT)` by name, never with a value."""
    for name in REQUIRED:
        if not attributes.get(name):
            raise _wrong(f"The message has no '{name}' attribute, which CloudEvents requires: publish it as a CloudEvent 1.0.")
    if not attributes["specversion"].startswith("1."):
        raise _wrong("The message has an unknown CloudEvents version: 1.0 is accepted.")
    for name, value in attributes.items():
        if has_forbidden(value):
            raise _wrong(f"The attribute '{name}' holds a control character: take it out.")
    for name in _SHORT:
        if len(attributes.get(name, "")) > MAX_KEY:
            raise _wrong(f"The attribute '{name}' has more than {MAX_KEY} characters: use a shorter one.")
    for name in _TIMES:
        if attributes.get(name):
            moment(attributes[name], name)


def moment(text: str, name: str = "expirytime") -> float:
    """Return the seconds since 1970 of an RFC 3339 time, whatever its offset and fraction. Raises `Error(INVALID_ARGUMENT)`."""
    found = _TIME.fullmatch(text)
    if found is not None:
        day, minute, second, fraction, sign, hours, minutes = found.groups()
        leap = int(second) == _LEAP
        try:
            whole = datetime.fromisoformat(f"{day}T{minute}:{'59' if leap else second}").replace(tzinfo=UTC).timestamp()
        except ValueError:
            pass
        else:
            offset = (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1) if sign else 0
            return whole + leap + float(fraction or 0) - offset
    raise _wrong(f"The attribute '{name}' is no time: write it as RFC 3339 says, such as 2026-11-22T10:00:00Z.")


def _wrong(text: str) -> Error:
    return Error(Code.INVALID_ARGUMENT, text)
