"""Routes of operations as an ASGI application: the handlers, deadlines, keys and errors of Connect, by plain HTTP with JSON."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from linkspan.errors import Code, Error
from linkspan.transport.endpoint import LATE, Inbound
from linkspan.transport.rest_binding import read_request, write_answer
from linkspan.transport.rest_router import Match, Router
from linkspan.transport.retry import retry_after
from linkspan.transport.unary import CONTENT_LENGTH, TIMEOUT, TIMEOUT_DIGITS, UNWRITABLE, error_body, http_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from starlette.types import Receive, Scope, Send

    from linkspan.transport.endpoint import Answers, Endpoint, StreamEndpoint

__all__ = ["RestRoutes"]

_JSON: Final = b"application/json"
_JSON_KIND: Final = re.compile(r"application/(json|[a-z0-9.+-]+\+json)\s*(;\s*charset=\"?utf-8\"?\s*)?", re.IGNORECASE)
_NOT_ALLOWED: Final = 405
_UNSUPPORTED: Final = 415


class _RefusedError(Exception):
    """An error whose status is not the one of its code."""

    def __init__(self, status: int, error: Error) -> None:
        super().__init__(status, error)
        self.status, self.error = status, error


class _HungUpError(Exception):
    """The caller hung up before its request was whole."""


class RestRoutes:
    """Serves what has a route among the endpoints."""

    def __init__(self, endpoints: Iterable[Endpoint | StreamEndpoint], answers: Answers, *, max_message_bytes: int) -> None:
        self._router = Router(endpoints)
        self._answers = answers
        self._max_bytes = max_message_bytes

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer the request if its path has a route; tell whether it has."""
        if not self._router:
            return False
        try:
            match = self._router.find(scope["method"], _raw_path(scope))
        except Error as error:
            await _answer(send, http_status(error.code), error_body(error.code, error.message))
            return True
        if match is None:
            return False
        if match.endpoint is None:
            await self._not_allowed(scope, match, send)
            return True
        try:
            status, body, more = await self._outcome(match, scope, receive)
        except _HungUpError:
            return True
        await _answer(send, status, body, more, head=scope["method"] == "HEAD")
        return True

    async def _not_allowed(self, scope: Scope, match: Match, send: Send) -> None:
        allow = [(b"allow", ", ".join(match.allowed).encode())]
        if scope["method"] == "OPTIONS":
            await _answer(send, 204, b"", allow)
            return
        text = f"This path takes {', '.join(match.allowed)} only: use one of these methods."
        await _answer(send, _NOT_ALLOWED, error_body(Code.UNIMPLEMENTED, text), allow)

    async def _outcome(self, match: Match, scope: Scope, receive: Receive) -> tuple[int, bytes, Sequence[tuple[bytes, bytes]]]:
        """Return status, body and headers of the answer. Raises `_HungUpError` when nobody waits for it."""
        endpoint: Any = match.endpoint
        try:
            return 200, await self._served(match, endpoint, scope, receive), ()
        except _RefusedError as refused:
            return refused.status, error_body(refused.error.code, refused.error.message), ()
        except Error as error:
            try:
                body = error_body(error.code, error.message, error.details)
            except Exception as bug:  # noqa: BLE001 - a detail with wrong values: the handler's fault, like what else it may raise
                told = self._answers.bug(endpoint.operation.path, bug)
                return http_status(told.code), error_body(told.code, told.message), ()
            after = retry_after(error.details)
            return http_status(error.code), body, ((b"retry-after", after.encode()),) if after else ()

    async def _served(self, match: Match, endpoint: Endpoint, scope: Scope, receive: Receive) -> bytes:
        route: Any = match.route
        headers = _headers(scope)
        timeout = _timeout(headers)
        body = await self._body(headers, receive)
        query = scope["query_string"].decode("latin-1")
        request = read_request(route, endpoint.operation.request, match.path, query, body)
        inbound = Inbound(headers, timeout, ":".join(map(str, scope.get("client") or ())))
        response = await self._answered(endpoint, request, inbound, receive)
        try:
            return write_answer(route, response)
        except UNWRITABLE as error:
            raise self._answers.unwritable(response, error) from None

    async def _answered(self, endpoint: Endpoint, request: Any, inbound: Inbound, receive: Receive) -> Any:
        """Run the endpoint until its deadline, or until the caller hangs up: then nobody waits for it."""
        gone = False
        task = asyncio.current_task()

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            gone = True
            if task is not None:
                task.cancel()

        watching = asyncio.get_running_loop().create_task(watch())
        try:
            async with asyncio.timeout(inbound.timeout):
                return await self._answers.answer(endpoint, request, inbound)
        except TimeoutError:
            raise Error(Code.DEADLINE_EXCEEDED, LATE) from None
        except asyncio.CancelledError:
            if not gone or task is None:
                raise
            task.uncancel()
            raise _HungUpError from None
        finally:
            watching.cancel()

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        size = int(headers.get("content-length", "0"))
        if size > self._max_bytes:
            raise self._too_large(f"of {size} bytes ")
        pieces: list[bytes] = []
        total, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _HungUpError
            piece = message.get("body", b"")
            total, more = total + len(piece), message.get("more_body", False)
            if total > self._max_bytes:
                raise self._too_large("")
            pieces.append(piece)
        body = b"".join(pieces)
        if body:
            _check_kind(headers)
        return body

    def _too_large(self, size: str) -> Error:
        return Error(Code.RESOURCE_EXHAUSTED, f"Request {size}exceeds {self._max_bytes}: send smaller messages.")


def _raw_path(scope: Scope) -> str:
    """Return the path as it was sent, percent-encoded."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw.partition(b"?")[0].decode("latin-1")


def _headers(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        if not value.isascii():
            raise Error(Code.INVALID_ARGUMENT, "Reading a header failed: header values are ASCII, encode others.")
        key, text = name.decode("latin-1").lower(), value.decode("ascii")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _timeout(headers: dict[str, str]) -> float | None:
    text = headers.get(TIMEOUT)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= TIMEOUT_DIGITS):
        raise Error(Code.INVALID_ARGUMENT, f"Reading '{TIMEOUT}' failed: send whole milliseconds, at most {TIMEOUT_DIGITS} digits.")
    return int(text) / 1000


def _check_kind(headers: dict[str, str]) -> None:
    if headers.get("content-encoding", "identity") != "identity":
        text = "Reading a compressed body failed: send it as it is."
        raise _RefusedError(_UNSUPPORTED, Error(Code.UNIMPLEMENTED, text))
    if not _JSON_KIND.fullmatch(headers.get("content-type", "").strip()):
        text = "Reading the body failed: send JSON in UTF-8, with 'content-type: application/json'."
        raise _RefusedError(_UNSUPPORTED, Error(Code.INVALID_ARGUMENT, text))


async def _answer(send: Send, status: int, body: bytes, more: Sequence[tuple[bytes, bytes]] = (), *, head: bool = False) -> None:
    kind = [(b"content-type", _JSON), (CONTENT_LENGTH, b"%d" % len(body))] if body else []
    headers = [*kind, *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})
