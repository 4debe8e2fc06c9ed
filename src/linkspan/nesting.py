"""How deep JSON nests, told before a decoder sees it."""

from __future__ import annotations

import itertools
import re
from typing import Final

__all__ = ["MAX_DEPTH", "too_deep"]

MAX_DEPTH: Final = 2 * 101
"""Brackets that may be open at once: 100 levels of messages, as in protobuf's binary decoders, each in a list of its own."""

_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # the closing quote is optional, else time is quadratic
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def too_deep(data: bytes | bytearray | memoryview | str) -> bool:
    """Tell whether JSON nests deeper than protobuf allows: protobuf-py 0.7 overflows its stack on a deep list where an object belongs."""
    raw = data.encode() if isinstance(data, str) else bytes(data)
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", raw).translate(None, _NO_BRACKETS)
    steps = (1 if bracket in b"[{" else -1 for bracket in brackets)
    return max(itertools.accumulate(steps), default=0) > MAX_DEPTH
