"""Carry the W3C trace through every hop, and make OpenTelemetry spans where a tracer provider is installed."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linkspan.context import Context
    from linkspan.handler import Handler

__all__ = ["Tracing"]

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_PARENT_SIZE = 55


class Tracing:
    """Gives each request a span of its own under the caller's trace (https://www.w3.org/TR/trace-context/).

    Without an OpenTelemetry SDK only the ids travel: nothing is recorded and nothing but two strings is made.
    """

    async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
        """Open a span, go on, close it."""
        ids = ctx.home.runtime.ids
        parent = ctx.trace
        if len(parent) == _PARENT_SIZE and _TRACEPARENT.fullmatch(parent):
            ctx.trace = f"{parent[:36]}{ids.span()}{parent[52:]}"
        else:
            parent = ""
            ctx.trace = f"00-{ids.span()}{ids.span()}-{ids.span()}-01"
        if "opentelemetry.sdk.trace" not in sys.modules:
            return await call_next(ctx, request)
        from linkspan.telemetry.spans import traced  # noqa: PLC0415 - costs nothing where no SDK is installed

        return await traced(ctx, parent, request, call_next)
