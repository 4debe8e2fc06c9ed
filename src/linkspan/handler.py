"""The one shape: a handler answers a request; a middleware wraps a handler. Both serve every path, client and server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Handler", "Middleware", "compose"]

Handler: TypeAlias = Callable[[Any, Any], Awaitable[Any]]
"""`(ctx, request) -> response`: a unary call, an event handler, a durable command, or the wire at the end of a client's chain."""


class Middleware(Protocol):
    """Wraps a handler: do something, `await call_next(ctx, request)` at most once, do something more."""

    async def __call__(self, ctx: Any, request: Any, call_next: Handler, /) -> Any:
        """Answer the request, or raise `Error`. `ctx.path` and `ctx.side` tell where it runs."""
        ...


def compose(middleware: Sequence[Middleware], handler: Handler) -> Handler:
    """Fold middleware around a handler, the first outermost. Done once per operation, at start."""
    for layer in reversed(middleware):
        handler = partial(_apply, layer, handler)
    return handler


def _apply(layer: Middleware, call_next: Handler, ctx: Any, request: Any) -> Awaitable[Any]:
    return layer(ctx, request, call_next)
