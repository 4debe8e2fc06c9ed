"""Connect's GET: a query in a URL, so that what stands between may keep the answer (https://connectrpc.com/docs/protocol#unary-get-request).

Deterministic on our side: identity coding, maps in the order of their keys, parameters in the specification's order.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from linkspan.transport.deterministic import write_deterministic
from linkspan.transport.unary import PROTO

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from protobuf import Message

    from linkspan.operation import Operation

__all__ = ["MAX_URL_BYTES", "CachedReply", "get_path", "unfit_query"]

MAX_URL_BYTES: Final = 8 * 1024
"""Longer questions are asked by POST: servers and proxies cut URLs at 8 kB and more."""

_QUERY: Final = f"?connect=v1&base64=1&encoding={PROTO.name}&message="
_BASE64: Final = re.compile(r"[A-Za-z0-9_-]*={0,2}")
_MOST_PARAMETERS: Final = 32
_OK: Final = 200


def get_path(path: str, request: Message[Any]) -> str:
    """Return the path and query that ask for this, '' where they would be too long. Raises as `write_binary`."""
    message = urlsafe_b64encode(write_deterministic(request)).rstrip(b"=").decode()
    asked = f"{path}{_QUERY}{message}"
    return asked if len(asked) <= MAX_URL_BYTES else ""


def unfit_query(query: bytes) -> str:
    """Return what is wrong with a query string that connectrpc would trip over or let pass, '' where nothing is."""
    try:
        given = parse_qs(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        return "Reading the URL failed: write its query as percent-encoded UTF-8, with each parameter once."
    if any(len(values) > 1 for name, values in given.items() if name in {"connect", "base64", "encoding", "message", "compression"}):
        return "Reading the URL failed: give each parameter once."
    if given.get("connect", ["v1"]) != ["v1"]:
        return "Reading the URL failed: 'connect' is the version of the protocol, write connect=v1."
    if given.get("base64", ["0"]) not in (["0"], ["1"]):
        return "Reading the URL failed: write base64=1, or leave it out."
    if given.get("base64") == ["1"] and not _BASE64.fullmatch(given.get("message", [""])[0]):
        return "Reading the URL failed: with base64=1, 'message' is URL-safe base64."
    return ""


class CachedReply:
    """`send` that says how long an answer may be kept, and sends none that the caller has already."""

    __slots__ = ("_fresh", "_known", "_send", "_start")

    def __init__(self, send: Callable[[MutableMapping[str, Any]], Awaitable[None]], operation: Operation[Any, Any], known: str) -> None:
        self._send = send
        cache: float | None = getattr(operation, "cache", None)
        self._fresh = None if cache is None else int(cache)
        self._known = known
        self._start: MutableMapping[str, Any] = {}

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Pass a part of the response on; each comes in one piece."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        start, body = self._start, message["body"]
        headers = [header for header in start["headers"] if header[0] != b"cache-control"]
        if start["status"] != _OK or self._fresh is None:
            headers.append((b"cache-control", b"no-store"))
        else:
            tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
            headers += [(b"cache-control", b"max-age=%d" % self._fresh), (b"etag", tag.encode())]
            if _has(self._known, tag):
                start["status"], body = 304, b""
                headers = [header for header in headers if header[0] not in {b"content-length", b"content-type"}]
        await self._send({**start, "headers": headers})
        await self._send({**message, "body": body})


def _has(known: str, tag: str) -> bool:
    """Tell whether If-None-Match names a tag (RFC 9110 §13.1.2: weakly compared)."""
    return any(each.strip().removeprefix("W/") in {tag, "*"} for each in known.split(","))
