"""Refuse work whose time is over, before it costs anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan.errors import Code, Error

if TYPE_CHECKING:
    from linkspan.context import Context
    from linkspan.handler import Handler

__all__ = ["Deadline"]


class Deadline:
    """Answers DEADLINE_EXCEEDED when the request's deadline has passed before it starts.

    Ending work that is under way belongs to who drives it: the server's transport for calls, the consumer for messages.
    """

    async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
        """Check the clock, then go on."""
        self.before(ctx)
        return await call_next(ctx, request)

    def before(self, ctx: Context) -> None:
        """Check the clock."""
        if ctx.deadline <= ctx.home.runtime.clock.monotonic():
            raise Error(Code.DEADLINE_EXCEEDED, f"The deadline of '{ctx.operation}' passed before it began: give it more time.")
