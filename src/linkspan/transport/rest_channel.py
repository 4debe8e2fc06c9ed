"""Calls to a REST service as operations of a contract: the route makes the request, status and body make the answer or the error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from linkspan.errors import Code, Error, SetupError
from linkspan.transport.http import TRANSPORT_HEADERS, HttpTransport, parse_address
from linkspan.transport.rest_binding import build_request, read_answer
from linkspan.transport.rest_errors import error_of
from linkspan.transport.unary import MAX_MESSAGE_BYTES, TIMEOUT, format_timeout, registry_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from linkspan.operation import Operation
    from linkspan.ports import Runtime
    from linkspan.transport.http import PoolLimits

__all__ = ["SCHEME", "RestChannel", "split_address"]

SCHEME: Final = "rest+"
"""What the address of a REST service begins with: `rest+https://host`."""

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_OURS: Final = TRANSPORT_HEADERS | {"accept", "accept-encoding", "content-type", "content-encoding", TIMEOUT}
_JSON: Final = re.compile(r"application/([a-z0-9.+-]+\+)?json(\s*;.*)?", re.IGNORECASE)
_GOOD: Final = range(200, 300)


def split_address(text: str) -> tuple[str, bool]:
    """Return the plain address, and whether fields have the contract's own names in JSON (`?names=proto`). Raises `SetupError`."""
    address, _, query = text.removeprefix(SCHEME).partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    names = settings.pop("names", "json")
    if settings or names not in {"json", "proto"}:
        raise SetupError(f"Address '{text}' has settings that are not known: write '?names=proto' or '?names=json', or nothing.")
    parse_address(address)
    return address, names == "proto"


class RestChannel:
    """A channel to one REST service. Connects at the first call; `aclose` ends it."""

    def __init__(
        self,
        address: str,
        *,
        runtime: Runtime,
        pool: PoolLimits | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        plain, self._proto_names = split_address(address)
        self._transport = HttpTransport(plain, clock=runtime.clock, limits=pool, max_response_bytes=max_message_bytes, tls=tls)
        self._clock = runtime.clock
        self.address = address

    async def unary(self, operation: Operation[Any, Any], request: Any, *, headers: Mapping[str, str], timeout: float) -> Any:
        """Call an operation by its first route and return its response message.

        `timeout` (seconds) is enforced here and travels as `connect-timeout-ms`. Raises `Error` only, or `CancelledError`.
        """
        if timeout <= 0:
            raise Error(Code.DEADLINE_EXCEEDED, f"Calling '{operation.path}' failed: its deadline had passed, give it more time.")
        if not operation.routes:
            text = f"'{operation.full_name}' has no route, but '{self.address}' is a REST service: declare it with http=\"GET /…\"."
            raise Error(Code.UNIMPLEMENTED, text)
        route = operation.routes[0]
        target, body = build_request(route, request, proto_names=self._proto_names)
        address = self._transport.address
        lines = [f"{route.method} {address.prefix}{target} HTTP/1.1", f"host: {address.authority}", "accept: application/json"]
        lines += _lines(operation, headers)
        lines.append(f"{TIMEOUT}: {format_timeout(timeout)}")
        if body is not None:
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        elif route.method not in {"GET", "DELETE"}:
            lines.append("content-length: 0")
        answer = await self._transport.send("\r\n".join((*lines, "", "")).encode("ascii") + (body or b""), timeout)
        if answer.status not in _GOOD:
            codes = operation.http.errors if operation.http else None
            raise error_of(answer, registry_of(operation.request, operation.response), codes or {}, self._clock.now())
        kind = next((value for name, value in answer.headers if name == "content-type"), "")
        if answer.body and not _JSON.fullmatch(kind.strip()):
            raise Error(Code.INTERNAL, f"'{operation.path}' was answered with '{kind}' instead of JSON: check what listens at the address.")
        return read_answer(route, operation.response, answer.body)

    async def aclose(self) -> None:
        """Close the connections; calls in flight end with UNAVAILABLE. Idempotent."""
        await self._transport.aclose()


def _lines(operation: Operation[Any, Any], headers: Mapping[str, str]) -> list[str]:
    """Return the caller's headers as they are written; refuses what would not arrive as it is."""
    for name, value in headers.items():
        if name.lower() in _OURS:
            raise Error(Code.INVALID_ARGUMENT, f"Sending header '{name}' failed: the channel sets it, leave it out.")
        if not (_TOKEN.fullmatch(name) and value.isascii() and value.isprintable()):
            text = f"Calling '{operation.path}' failed: header names and values must be valid HTTP header text in ASCII."
            raise Error(Code.INVALID_ARGUMENT, text)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return lines if "user-agent" in headers else ["user-agent: linkspan", *lines]
