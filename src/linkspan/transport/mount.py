"""An app as an ASGI application: inside Starlette or FastAPI, or served by another ASGI server.

Its life is the lifespan's, wherever that is run: by the server, by the outer application, or by `App.lifespan` in it. A request
that comes without it is answered with what is missing.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from linkspan.errors import Code, Error, SetupError
from linkspan.transport.unary import error_body, http_status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from linkspan.transport.asgi import ASGIApp, Message, Receive, Scope, Send
    from linkspan.transport.endpoint import Answers

__all__ = ["Mounted", "mount_on", "without_prefix"]

_log = logging.getLogger("linkspan.transport")

_NOT_STARTED: Final = (
    "This Linkspan app is mounted but was not started, because its lifespan is not run: mount it with app.mount_on(outer, path), "
    "or give the outer application lifespan=app.lifespan."
)
_ENDED: Final = "The server is shutting down: call another instance."
_CUT_SECONDS: Final = 1.0


def without_prefix(scope: Scope, prefix: str) -> Scope:
    """Return a scope whose path begins behind a prefix (the ASGI specification's `root_path`)."""
    path: str = scope["path"]
    if not prefix or not (path == prefix or path.startswith(f"{prefix}/")):
        return scope
    raw = (scope.get("raw_path") or b"").removeprefix(quote(prefix).encode())
    return {**scope, "path": path.removeprefix(prefix), "raw_path": raw, "root_path": ""}


class Mounted:
    """What `App.asgi()` returns. Calls under way are known, so that the end of the app can wait for them."""

    def __init__(self, lifespan: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        self._lifespan = lifespan
        self._application: ASGIApp | None = None
        self._answers: Answers | None = None
        self._ended = False
        self._calls: set[asyncio.Task[object]] = set()
        self._gone: asyncio.Event | None = None

    def open(self, application: ASGIApp, answers: Answers) -> None:
        """Begin to answer."""
        self._application, self._answers, self._ended = application, answers, False

    async def drain(self, timeout: float) -> None:
        """Refuse new calls, let those under way finish for `timeout` seconds, then cut them (UNAVAILABLE). Idempotent."""
        if self._application is None:
            return
        self._application, self._ended = None, True
        await self._until_gone(timeout)
        if self._answers is not None:
            self._answers.stopping = True
        for task in self._calls:
            task.cancel()
        await self._until_gone(_CUT_SECONDS)

    async def _until_gone(self, timeout: float) -> None:
        if not self._calls or timeout <= 0:
            return
        self._gone = asyncio.Event()
        try:
            async with asyncio.timeout(timeout):
                await self._gone.wait()
        except TimeoutError:
            pass
        finally:
            self._gone = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or run the lifespan (https://asgi.readthedocs.io/en/latest/specs/main.html)."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1003, "reason": "There are no web sockets here: call by POST."})
        else:
            await self._answer(without_prefix(scope, scope.get("root_path", "")), receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        application = self._application
        if application is None:
            await self._refuse(send)
            return
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("an ASGI application runs in a task")
        self._calls.add(task)
        try:
            await application(scope, receive, send)
        finally:
            self._calls.discard(task)
            if not self._calls and self._gone is not None:
                self._gone.set()

    async def _refuse(self, send: Send) -> None:
        code, text = (Code.UNAVAILABLE, _ENDED) if self._ended else (Code.INTERNAL, _NOT_STARTED)
        if not self._ended:
            _log.error(_NOT_STARTED)
        body = error_body(code, text)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": http_status(code), "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        life = self._lifespan()
        try:
            await life.__aenter__()
        except (Error, SetupError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        try:
            await receive()
        finally:
            await life.__aexit__(None, None, None)
        done: Message = {"type": "lifespan.shutdown.complete"}
        await send(done)


def mount_on(outer: Any, path: str, mounted: Mounted, lifespan: Callable[[], AbstractAsyncContextManager[None]]) -> None:
    """Mount on a Starlette or FastAPI application, and live inside the lifespan that it has. Raises `SetupError`."""
    if not path.startswith("/") or path.endswith("/"):
        raise SetupError(f"Mounting at '{path}' failed: write a path such as '/rpc'.")
    theirs = outer.router.lifespan_context

    @asynccontextmanager
    async def both(application: Any) -> AsyncGenerator[Any]:
        async with lifespan(), theirs(application) as state:
            yield state

    outer.router.lifespan_context = both
    outer.mount(path, mounted)
