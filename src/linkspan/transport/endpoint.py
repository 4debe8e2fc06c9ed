"""What a server serves, and how a handler is run for it: whatever goes wrong comes out as an `Error` that a peer may see."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from linkspan.errors import Code, Error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

    from protobuf import Message

    from linkspan.identity import Certificate
    from linkspan.operation import Operation
    from linkspan.ports import Ids

__all__ = ["INSIDE", "LATE", "ORIGIN", "OUTSIDE", "STOPPING", "Answers", "Endpoint", "Inbound", "Origin", "StreamEndpoint"]

LATE: Final = "Request timed out"
"""connectrpc's words for a deadline that has passed: one text, whoever notices it first."""

STOPPING: Final = "The server is shutting down: call another instance."
"""What the caller of a call is told that was cut at the end of the server."""

logger = logging.getLogger("linkspan.transport")


class Origin(NamedTuple):
    """What a connection proves about who calls."""

    certificate: Certificate | None = None
    same_process: bool = False


OUTSIDE: Final = Origin()
INSIDE: Final = Origin(same_process=True)
ORIGIN: Final[ContextVar[Origin]] = ContextVar("origin", default=OUTSIDE)
"""The origin of the request in hand on its way through connectrpc, which passes on nothing of the connection."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """What a request brought besides its message. Header names are lower-case; `timeout` is seconds left, None without deadline."""

    headers: Mapping[str, str]
    timeout: float | None
    peer: str
    origin: Origin = OUTSIDE


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An operation and what answers it: returns the response message, or raises `Error`."""

    operation: Operation[Any, Any]
    serve: Callable[[Any, Inbound], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class StreamEndpoint:
    """An operation with a stream, and what answers it: takes requests (one, unless the caller streams) and yields responses.

    Closing the responses ends the handler and waits for its clean-up. Where the operation has one response, one is yielded.
    """

    operation: Operation[Any, Any]
    serve: Callable[[AsyncIterator[Any], Inbound], AsyncGenerator[Any, None]]


class Answers:
    """Runs endpoints for a server. `stopping` says that a cancelled handler was cut by the server's end."""

    def __init__(self, ids: Ids) -> None:
        self.stopping = False
        self._ids = ids

    async def answer(self, endpoint: Endpoint, request: Any, inbound: Inbound) -> Any:
        """Return the response message. Raises `Error`, or `CancelledError` if the task itself was cancelled."""
        operation = endpoint.operation
        timeout = inbound.timeout
        if timeout is not None and timeout <= 0:
            raise Error(Code.DEADLINE_EXCEEDED, LATE)
        try:
            response = await endpoint.serve(request, inbound)
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything; none of its text may reach the peer
            raise self._told(operation, error) from None
        self._check(operation, response)
        return response

    async def stream(self, endpoint: StreamEndpoint, requests: AsyncIterator[Any], inbound: Inbound) -> AsyncGenerator[Any, None]:
        """Yield the response messages; one where the operation has one. Raises as `answer` does.

        Closing it ends the handler and waits for its clean-up.
        """
        operation = endpoint.operation
        if inbound.timeout is not None and inbound.timeout <= 0:
            raise Error(Code.DEADLINE_EXCEEDED, LATE)
        responses = endpoint.serve(requests, inbound)
        try:
            async for response in responses:
                self._check(operation, response)
                yield response
        except BaseException as error:  # noqa: BLE001 - as above
            raise self._told(operation, error) from None
        finally:
            await responses.aclose()

    def _told(self, operation: Operation[Any, Any], error: BaseException) -> BaseException:
        """Return what to raise for what a handler raised."""
        if isinstance(error, Error | GeneratorExit):
            return error
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # raised by the handler: a bug like any other
                return self.bug(operation.path, error)
            return Error(Code.UNAVAILABLE, STOPPING) if self.stopping else error
        return self.bug(operation.path, error)

    def _check(self, operation: Operation[Any, Any], response: Any) -> None:
        if not isinstance(response, operation.response):
            wrong = TypeError(f"'{operation.path}' returned a {type(response).__name__}: return a {operation.response.__name__}")
            raise self.bug(operation.path, wrong)

    def unwritable(self, response: Message, error: Exception) -> Error:
        """Return what to tell a peer whose answer holds values of wrong types."""
        return self.bug(response.desc().type_name, error)

    def bug(self, where: str, error: BaseException) -> Error:
        """Log a foreign exception under a new id; the peer gets the id only."""
        error_id = self._ids.new()
        logger.error("handler failed", exc_info=error, extra={"operation": where, "error_id": error_id})
        return Error(Code.INTERNAL, f"Internal error '{error_id}': look it up in the service's log.")
