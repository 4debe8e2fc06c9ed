"""Carry the W3C trace through every hop, and make OpenTelemetry spans where a tracer provider is installed."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from linkspan.context import Context
    from linkspan.handler import Handler
    from linkspan.ports import Ids

__all__ = ["Tracing", "new_trace"]

_is_traceparent = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch


def new_trace(ids: Ids) -> str:
    """Return the traceparent of a new trace."""
    return f"00-{ids.trace()}-{ids.span()}-01"


class Tracing:
    """Gives each request a span of its own under the caller's trace (https://www.w3.org/TR/trace-context/).

    Without an OpenTelemetry SDK (looked for when the app starts) only the ids travel: nothing is recorded.
    """

    @property
    def before(self) -> Callable[[Context], object] | None:
        """Return all there is to do where nothing is recorded."""
        return None if "opentelemetry.sdk.trace" in sys.modules else self._travel

    async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
        """Open a span, go on, close it."""
        parent = self._travel(ctx)
        if self.before is not None:
            return await call_next(ctx, request)
        from linkspan.telemetry.spans import traced  # noqa: PLC0415 - costs nothing where no SDK is installed

        return await traced(ctx, parent, request, call_next)

    def _travel(self, ctx: Context) -> str:
        """Give the request a span id under its caller's trace; return the caller's traceparent, empty where there is none."""
        ids = ctx.home.runtime.ids
        parent = ctx.trace
        if _is_traceparent(parent):
            ctx.trace = f"{parent[:36]}{ids.span()}{parent[52:]}"
            return parent
        ctx.trace = new_trace(ids)
        return ""
