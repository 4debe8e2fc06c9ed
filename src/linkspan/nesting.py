"""How deep JSON nests, told before a decoder sees it."""

from __future__ import annotations

import itertools
import re
from typing import Final

__all__ = ["LEVELS", "MAX_DEPTH", "may_be_deep", "too_deep"]

LEVELS: Final = 100
"""Levels of messages that protobuf's binary decoders accept."""
MAX_DEPTH: Final = 2 * (LEVELS + 1)
"""Brackets that may be open at once: each message in a list of its own."""

_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # the closing quote is optional, else time is quadratic
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def may_be_deep(data: bytes | bytearray | str) -> bool:
    """Tell whether there are enough brackets to nest deeply: one look, for the many texts that have few."""
    opened = data.count("{") + data.count("[") if isinstance(data, str) else data.count(b"{") + data.count(b"[")
    return opened > LEVELS


def too_deep(data: bytes | bytearray | str) -> bool:
    """Tell whether JSON nests deeper than protobuf allows: protobuf-py 0.7 overflows its stack on a deep list where an object belongs."""
    if not may_be_deep(data):
        return False
    raw = data.encode() if isinstance(data, str) else bytes(data)
    brackets = _STRING.sub(b"", raw).translate(None, _NO_BRACKETS)
    steps = (1 if bracket in b"[{" else -1 for bracket in brackets)
    return max(itertools.accumulate(steps), default=0) > MAX_DEPTH
