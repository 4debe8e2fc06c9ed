"""What a REST service means by an answer that is no success: a coded error, whatever form its body has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from protobuf.wkt import Struct

from linkspan.errors import Code, Error
from linkspan.nesting import too_deep
from linkspan.transport.retry import RetryDelay, read_retry_after
from linkspan.transport.unary import read_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protobuf import Message, Registry

    from linkspan.transport.http import Answer

__all__ = ["code_of_status", "error_of"]

# Where several codes have one status, the one that is true of most services; 409 is final, so that it is not tried again and again.
_CODES: Final = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    405: Code.UNIMPLEMENTED,
    406: Code.INVALID_ARGUMENT,
    408: Code.DEADLINE_EXCEEDED,
    409: Code.ALREADY_EXISTS,
    410: Code.NOT_FOUND,
    412: Code.FAILED_PRECONDITION,
    413: Code.INVALID_ARGUMENT,
    414: Code.INVALID_ARGUMENT,
    415: Code.INVALID_ARGUMENT,
    416: Code.OUT_OF_RANGE,
    422: Code.INVALID_ARGUMENT,
    423: Code.ABORTED,
    425: Code.UNAVAILABLE,
    429: Code.RESOURCE_EXHAUSTED,
    499: Code.CANCELED,
    501: Code.UNIMPLEMENTED,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
_SERVERS_FAULT: Final = 500
_NAMES: Final = frozenset(code.value for code in Code)
_NUMBERS: Final = tuple(Code)  # gRPC counts its codes from 1 in the order in which Code names them
_MOST_TEXT: Final = 1000


def code_of_status(status: int) -> Code:
    """Return the code for a status: 500 is UNKNOWN, because the service may have done its work."""
    return _CODES.get(status) or (Code.UNKNOWN if status >= _SERVERS_FAULT else Code.FAILED_PRECONDITION)


def error_of(answer: Answer, registry: Registry, codes: Mapping[int, Code], now: float) -> Error:
    """Return the error for an answer: Connect's own, a problem (RFC 9457), Google's, or what the status alone says.

    `codes` goes before everything else. A `Retry-After` becomes a `RetryDelay` among the details.
    """
    found = _from_body(answer.status, answer.body, registry)
    code = codes.get(answer.status, found.code)
    details = list(found.details)
    if not any(isinstance(detail, RetryDelay) for detail in details):
        told = [read_retry_after(value, now) for name, value in answer.headers if name == "retry-after"]
        details.extend(detail for detail in told if detail is not None)
    return Error(code, found.message, details)


def _from_body(status: int, body: bytes, registry: Registry) -> Error:
    try:
        content: Any = None if too_deep(body) else json.loads(body)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return _from_status(status)
    known = cast("dict[str, Any]", content)
    code = known.get("code")
    if isinstance(code, str) and code in _NAMES and "status" not in known:
        try:
            return read_error(status, body, registry)
        except ValueError:
            return _from_status(status)
    google = known.get("error")
    inner = cast("dict[str, Any]", google) if isinstance(google, dict) else known
    return Error(_named(inner) or code_of_status(status), _text(inner) or _from_status(status).message, _kept(known))


def _named(content: Mapping[str, Any]) -> Code | None:
    """Return the code that Google's form names: `status` as text, or `code` as gRPC's number."""
    name, number = content.get("status"), content.get("code")
    if isinstance(name, str):
        spelt = {"CANCELLED": "CANCELED"}.get(name, name)
        return Code[spelt] if spelt in Code.__members__ else None
    if type(number) is int and "message" in content and 1 <= number <= len(_NUMBERS):
        return _NUMBERS[number - 1]
    return None


def _text(content: Mapping[str, Any]) -> str:
    """Return what a body says in words: a problem's title and detail, or a message."""
    given = [content.get(name) for name in ("title", "detail")]
    words = [text for text in given if isinstance(text, str) and text]
    message = content.get("message")
    return (": ".join(words) or (message if isinstance(message, str) else ""))[:_MOST_TEXT]


def _kept(content: dict[str, Any]) -> list[Message[Any]]:
    """Return the body as a detail, so that its own members are not lost."""
    try:
        return [Struct.from_python(content)]
    except (TypeError, ValueError, OverflowError):
        return []


def _from_status(status: int) -> Error:
    hint = "look there"
    if 300 <= status < 400:  # noqa: PLR2004 - RFC 9110 §15.4, redirection
        hint = "redirects are not followed, set the address to where the service is"
    return Error(code_of_status(status), f"The service answered with HTTP status {status} and no reason: {hint}.")
