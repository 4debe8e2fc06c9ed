"""Send a token with the calls that leave."""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from linkspan.errors import SetupError
from linkspan.path import Path, Side

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from linkspan.context import Context
    from linkspan.handler import Handler
    from linkspan.operation import ServiceContract

__all__ = ["BearerToken"]


class BearerToken:
    """Sets `authorization: Bearer ...` on outgoing calls. One that the caller has set already stays.

    Args:
        source: The token, or a function `(ctx) -> token`, sync or async, which is asked before each call and caches for itself.
        to: The service contracts that get it; empty for all. Name them where an app also calls services of others.
    """

    def __init__(self, source: str | Callable[[Context], str | Awaitable[str]], *, to: Collection[type[ServiceContract]] = ()) -> None:
        if isinstance(source, str) and not source:
            raise SetupError("BearerToken was given an empty token: give the token, or a function that returns it.")
        self._source = source
        self._to = frozenset(contract.full_name for contract in to)

    def __repr__(self) -> str:
        return "BearerToken(...)"

    async def __call__(self, ctx: Context, request: Any, call_next: Handler, /) -> Any:
        """Add the header, then go on."""
        if (
            ctx.side is Side.CLIENT
            and ctx.path is not Path.DURABLE
            and "authorization" not in ctx.headers
            and (not self._to or ctx.operation.rpartition(".")[0] in self._to)
        ):
            token = self._source if isinstance(self._source, str) else self._source(ctx)
            ctx.headers["authorization"] = f"Bearer {await token if isawaitable(token) else token}"
        return await call_next(ctx, request)
