"""What the HTTP port does for browsers and tools besides calls: pages of other origins (CORS), and `/openapi.json`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["DOCUMENT_PATH", "Web", "web_front"]

DOCUMENT_PATH: Final = "/openapi.json"

_ORIGIN: Final = re.compile(r"https?://[^/\s,?#@*]+")
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_EXPOSED: Final = ("grpc-status", "grpc-message", "grpc-status-details-bin", "retry-after", "etag")
_REMEMBERED: Final = 7200  # seconds that a browser may keep the answer to a preflight; Chromium caps it there


@dataclass(frozen=True, slots=True)
class Web:
    """What the HTTP port does besides calls; nothing of it by default.

    Attributes:
        origins: Whose pages may call from a browser: `https://app.example`, or `*` for all. Cookies are never taken.
        openapi: Whether `/openapi.json` tells how each operation is called.
    """

    origins: tuple[str, ...] = ()
    openapi: bool = False

    def __post_init__(self) -> None:
        for origin in self.origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise SetupError(f"The origin '{origin}' (LINKSPAN_ORIGINS) cannot be a page's: write 'https://app.example', or '*'.")

    @classmethod
    def from_environment(cls) -> Web:
        """Read LINKSPAN_ORIGINS (separated by commas) and LINKSPAN_OPENAPI (1 or 0). Raises `SetupError`."""
        told = os.environ.get("LINKSPAN_OPENAPI", "")
        if told not in {"", "0", "1"}:
            raise SetupError(f"LINKSPAN_OPENAPI is '{told}': write 1 to serve {DOCUMENT_PATH}, or 0.")
        origins = (piece.strip() for piece in os.environ.get("LINKSPAN_ORIGINS", "").split(","))
        return cls(tuple(origin for origin in origins if origin), told == "1")


def web_front(application: ASGIApp, web: Web, document: Callable[[], bytes]) -> ASGIApp:
    """Return the application with what `web` asks for in front of it; `document` makes the OpenAPI document when it is first asked for."""
    front = _Documented(application, document) if web.openapi else application
    if not web.origins:
        return front
    from starlette.middleware.cors import CORSMiddleware  # noqa: PLC0415 - only where it is used

    return CORSMiddleware(
        front,
        allow_origins=web.origins,
        allow_methods=_METHODS,
        allow_headers=["*"],  # the origin is the gate; what a page sends, Connect, gRPC-Web and middleware read
        expose_headers=_EXPOSED,
        max_age=_REMEMBERED,
    )


class _Documented:
    """Answers one path with a document, made once."""

    def __init__(self, application: ASGIApp, document: Callable[[], bytes]) -> None:
        self._application = application
        self._make = document
        self._made = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != DOCUMENT_PATH or scope["method"] not in {"GET", "HEAD"}:
            await self._application(scope, receive, send)
            return
        self._made = self._made or self._make()
        length = b"%d" % len(self._made)
        headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", length), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self._made})
