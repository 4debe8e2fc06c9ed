"""`/livez`, `/readyz` and `/startupz`: what an orchestrator asks a process, answered in JSON without connectrpc.

Alive is a process whose loop answers. It has started when all of its services run, and is ready while each check of its
`Readiness` finds nothing; the answer names what is wrong, and notes what is unusual. 200 is yes, 503 is no.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from linkspan.readiness import Readiness
    from linkspan.transport.asgi import Receive, Scope, Send

__all__ = ["PATHS", "Probes"]

LIVE, READY, STARTED = "/livez", "/readyz", "/startupz"
PATHS: Final = frozenset({LIVE, READY, STARTED})


class Probes:
    """An ASGI application for the three paths."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer a request for one of `PATHS`."""
        method = scope["method"]
        if method not in ("GET", "HEAD"):
            await _answer(send, 405, {"status": "ask by GET"}, [(b"allow", b"GET, HEAD")])
            return
        yes, word, checks = await self._asked(scope["path"])
        content: dict[str, object] = {"status": word} if checks is None else {"status": word, "checks": checks}
        if checks is not None and (notes := self._readiness.notes()):
            content["durability"] = notes
        if checks is not None and (waiting := self._readiness.waiting()):
            content["waiting"] = waiting
        await _answer(send, 200 if yes else 503, content, [(b"cache-control", b"no-store")], empty=method == "HEAD")

    async def _asked(self, path: str) -> tuple[bool, str, dict[str, str] | None]:
        readiness = self._readiness
        if path == LIVE:
            return True, "alive", None
        if path == STARTED:
            return readiness.started, "started" if readiness.started else "starting", None
        report = await readiness.report()
        yes = not any(report.values())
        return yes, "ready" if yes else "not ready", {name: wrong or "ok" for name, wrong in report.items()}


async def _answer(send: Send, status: int, content: object, headers: list[tuple[bytes, bytes]], *, empty: bool = False) -> None:
    body = json.dumps(content).encode()
    said = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": said})
    await send({"type": "http.response.body", "body": b"" if empty else body})
