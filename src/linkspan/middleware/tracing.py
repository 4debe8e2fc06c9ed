"""OpenTelemetry spans around handlers and calls, where a tracer provider is installed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from linkspan.handler import nothing
from linkspan.trace import is_traceparent

if TYPE_CHECKING:
    from collections.abc import Callable

    from linkspan.context import Context
    from linkspan.handler import Handler

__all__ = ["Tracing"]


class Tracing:
    """Records a span for each request, under the caller's.

    Without an OpenTelemetry SDK (looked for when the app starts) nothing is recorded: the ids travel all the same, each
    request's context derives its own from its caller's.
    """

    @property
    def before(self) -> Callable[[Context], object] | None:
        """Return that there is nothing to do where nothing is recorded."""
        return None if "opentelemetry.sdk.trace" in sys.modules else nothing

    async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
        """Open a span, go on, close it."""
        if self.before is not None:
            return await call_next(ctx, request)
        from linkspan.telemetry.spans import traced  # noqa: PLC0415 - costs nothing where no SDK is installed

        return await traced(ctx, ctx.parent if is_traceparent(ctx.parent) else "", request, call_next)
