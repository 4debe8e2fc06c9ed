"""Fetch a small document over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from linkspan.errors import Code, Error
from linkspan.transport.http import HttpTransport, PoolLimits

if TYPE_CHECKING:
    import ssl

    from linkspan.ports import Runtime

__all__ = ["fetch"]

_OK: Final = 200
_MOST: Final = 1024 * 1024  # bytes


async def fetch(url: str, runtime: Runtime, *, timeout: float = 5.0, tls: ssl.SSLContext | None = None) -> bytes:
    """Return what a GET of `url` answers, up to a mebibyte. Raises `Error` for any status but 200; follows no redirects."""
    parts = urlsplit(url)
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    address = f"{parts.scheme}://{parts.netloc}"
    transport = HttpTransport(address, clock=runtime.clock, limits=PoolLimits(max_connections=1), max_response_bytes=_MOST, tls=tls)
    try:
        head = f"GET {path} HTTP/1.1\r\nhost: {parts.netloc}\r\naccept: application/json\r\nuser-agent: linkspan\r\n\r\n"
        answer = await transport.send(head.encode("ascii"), timeout)
    finally:
        await transport.aclose()
    if answer.status != _OK:
        raise Error(Code.UNAVAILABLE, f"'{parts.hostname}' answered {answer.status} to a GET of '{parts.path}': check the address.")
    return answer.body
