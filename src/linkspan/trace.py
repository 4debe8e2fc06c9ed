"""W3C trace context: the ids that tie the hops of a flow together (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from linkspan.ports import Ids

__all__ = ["child_of", "is_traceparent", "new_trace", "trace_of"]

is_traceparent = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch


def new_trace(ids: Ids) -> str:
    """Return the traceparent of a new trace."""
    return f"00-{ids.trace()}-{ids.span()}-01"


def trace_of(id: str) -> str:  # noqa: A002 - the CloudEvents word
    """Return the traceparent of the flow that begins with a message: its trace id is the message's UUID, so one finds the other."""
    digits = id.replace("-", "")
    return f"00-{digits}-{digits[16:]}-01"


def child_of(parent: str, ids: Ids) -> str:
    """Return a span of its own under the caller's, or a new trace where the caller gave none that can be read."""
    return f"{parent[:36]}{ids.span()}{parent[52:]}" if is_traceparent(parent) else new_trace(ids)
