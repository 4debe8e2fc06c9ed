"""The one shape: a handler answers a request; a middleware wraps a handler. Both serve every path, client and server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linkspan.operation import Operation

__all__ = ["Handler", "Middleware", "check_streams", "compose", "nothing"]

Handler: TypeAlias = Callable[[Any, Any], Awaitable[Any]]
"""`(ctx, request) -> response`: a unary call, an event handler, a durable command, or the wire at the end of a client's chain."""


class Middleware(Protocol):
    """Wraps a handler: do something, `await call_next(ctx, request)` at most once, do something more.

    One that only looks at the context beforehand may also have a synchronous `before(ctx)` that does all it does;
    neighbours of that kind are then called one after the other, when the handler is called, without a coroutine each.
    One that has nothing to do for now has `nothing` there.

    A stream passes once, and `call_next` lasts as long as the stream: the request is an async iterator where the caller
    streams, the answer is None where the handler does, whose responses leave by `ctx.emit`. A middleware that cannot
    wrap streams (it would call twice, or keep the answer) has `streams = False`: it is refused when the app starts.
    """

    async def __call__(self, ctx: Any, request: Any, call_next: Handler, /) -> Any:
        """Answer the request, or raise `Error`. `ctx.path` and `ctx.side` tell where it runs."""
        ...


def compose(middleware: Sequence[Middleware], handler: Handler) -> Handler:
    """Fold middleware around a handler, the first outermost. Done once per operation, at start."""
    first: list[Callable[[Any], None]] = []
    for layer in reversed(middleware):
        before = _before(layer)
        if before is nothing:
            continue
        if before is not None:
            first.insert(0, before)
            continue
        handler = partial(_apply, layer, _after(first, handler))
        first = []
    return _after(first, handler)


def check_streams(middleware: Sequence[Middleware], operation: Operation[Any, Any]) -> None:
    """Refuse middleware around a stream that it says it cannot wrap. Raises `SetupError`."""
    if operation.client_streaming or operation.server_streaming:
        for layer in middleware:
            if not getattr(layer, "streams", True):
                text = f"Middleware '{type(layer).__name__}' cannot wrap the stream '{operation.full_name}'"
                raise SetupError(f"{text}: give it to services without streams, or take the stream out of the contract.")


def _before(layer: Middleware) -> Callable[[Any], None] | None:
    """Return a layer's `before`, unless a subclass has its own `__call__`: then that is what it does."""
    found: Callable[[Any], None] | None = getattr(layer, "before", None)
    if "before" in getattr(layer, "__dict__", ()):
        return found
    for cls in type(layer).__mro__:
        if "before" in vars(cls):
            return found
        if "__call__" in vars(cls):
            break
    return None


def _apply(layer: Middleware, call_next: Handler, ctx: Any, request: Any) -> Awaitable[Any]:
    return layer(ctx, request, call_next)


def _after(first: list[Callable[[Any], None]], handler: Handler) -> Handler:
    if not first:
        return handler
    if len(first) == 1:
        return partial(_step, first[0], handler)
    steps = tuple(first)

    def run(ctx: Any, request: Any) -> Awaitable[Any]:
        for step in steps:
            step(ctx)
        return handler(ctx, request)

    return run


def _step(step: Callable[[Any], None], handler: Handler, ctx: Any, request: Any) -> Awaitable[Any]:
    step(ctx)
    return handler(ctx, request)


def nothing(_ctx: Any) -> None:
    """Do nothing beforehand: a middleware whose `before` this is costs nothing."""
