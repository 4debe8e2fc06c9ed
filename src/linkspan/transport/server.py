"""The direct path's server: Connect unary calls on uvicorn's HTTP protocol, in the app's own event loop."""

from __future__ import annotations

import asyncio
import ssl
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.server import ServerState

from linkspan.errors import SetupError
from linkspan.transport.endpoint import INSIDE, Answers, Endpoint, Inbound, StreamEndpoint
from linkspan.transport.fast import FastProtocol, UnaryCalls
from linkspan.transport.guard import GuardedProtocol, GuardLimits, Watch
from linkspan.transport.mount import without_prefix
from linkspan.transport.probes import PATHS
from linkspan.transport.unary import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from linkspan.ports import Runtime, Timer
    from linkspan.transport.asgi import ASGIApp, Receive, Scope, Send
    from linkspan.transport.probes import Probes

__all__ = ["DirectServer", "Endpoint", "Inbound", "StreamEndpoint"]

_BACKLOG: Final = 2048
_HANDSHAKE_SECONDS: Final = 10.0
_FAREWELL_SECONDS: Final = 2.0  # for the peer's answer to a TLS close
_SWEEP_SECONDS: Final = 1.0
_CUT_SECONDS: Final = 1.0  # for writing the answer of a call that was cut


class DirectServer:
    """Serves endpoints at one host and port; other paths go to `extra_app`, if there is one.

    Plain unary calls are served in the protocol class, everything else by an ASGI application over connectrpc on the same
    connections, which is loaded when it is first needed; `front` wraps it. `fast=False` sends every call there, `browsers=True` those
    of pages. With a `prefix`, which begins with a slash, only paths below it are known. `probes` answers for orchestrators. With
    `tls`, it speaks https.
    """

    def __init__(  # noqa: PLR0913 - each is a keyword of its own
        self,
        endpoints: Iterable[Endpoint | StreamEndpoint],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        prefix: str = "",
        tls: ssl.SSLContext | None = None,
        runtime: Runtime,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        extra_app: ASGIApp | None = None,
        front: Callable[[ASGIApp], ASGIApp] | None = None,
        browsers: bool = False,
        probes: Probes | None = None,
        fast: bool = True,
    ) -> None:
        self._host, self._port, self._prefix = host, port, prefix
        self._tls = tls
        self._runtime = runtime
        self._endpoints = tuple(endpoints)
        self._max_bytes = max_message_bytes
        self._extra_app = extra_app
        self._front = front
        self._probes = probes
        self._answers = Answers(runtime.ids)
        self._listener: asyncio.Server | None = None
        self._timer: Timer | None = None
        self._watch = Watch(runtime.clock)
        self._state = ServerState()
        streams = frozenset(f"{prefix}{each.operation.path}".encode() for each in self._endpoints if isinstance(each, StreamEndpoint))
        self._limits = GuardLimits(max_discard_bytes=2 * max_message_bytes, streams=streams)
        unary = [endpoint for endpoint in self._endpoints if isinstance(endpoint, Endpoint)]
        calls = UnaryCalls(unary, self._answers, clock=runtime.clock, max_bytes=max_message_bytes, prefix=prefix)
        if browsers:
            calls.unusual |= {"origin"}
        self._calls = calls if fast else None
        self._application: ASGIApp | None = None
        self._config = uvicorn.Config(
            self._asgi,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # else any local process could name the caller's address
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,  # longer than clients keep idle connections, so that they close first
        )

    @property
    def address(self) -> str:
        """The address to call, known once started, such as `http://127.0.0.1:8080`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self._port}{self._prefix}"

    async def start(self) -> None:
        """Listen. Raises `SetupError` when the port cannot be had."""
        self._config.load()
        if self._calls is None:
            await self._load()
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._protocol,
                self._host,
                self._port,
                backlog=_BACKLOG,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._tls else None,
                ssl_shutdown_timeout=_FAREWELL_SECONDS if self._tls else None,
            )
        except OSError as error:
            text = f"Listening on '{self._host}:{self._port}' failed ({error.strerror}): stop what holds it, or choose another port."
            raise SetupError(text) from error
        self._port = self._listener.sockets[0].getsockname()[1]
        self._sweep()

    async def drain(self, timeout: float) -> None:
        """Stop accepting, let calls in flight finish for `timeout` seconds, then cut what is left (UNAVAILABLE). Idempotent."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.close()
        for connection in list(self._watch.connections):
            connection.shutdown()
        await self._watch.until_gone(timeout)
        self._answers.stopping = True
        for task in list(self._state.tasks):
            task.add_done_callback(self._state.tasks.discard)
            task.cancel()
        await self._watch.until_gone(_CUT_SECONDS if self._state.tasks else 0.0)
        for connection in list(self._watch.connections):
            connection.transport.abort()
        await self._watch.until_gone(_CUT_SECONDS)
        if self._timer is not None:
            self._timer.cancel()
        if self._calls is not None:
            self._calls.close()
        await listener.wait_closed()

    def _protocol(self) -> GuardedProtocol:
        clock, limits, watch = self._runtime.clock, self._limits, self._watch
        made = (
            GuardedProtocol(self._config, self._state, clock=clock, limits=limits, watch=watch)
            if self._calls is None
            else FastProtocol(self._config, self._state, clock=clock, limits=limits, watch=watch, calls=self._calls)
        )
        made.knows_callers = self._tls is not None and self._tls.verify_mode is not ssl.CERT_NONE
        if self._prefix:
            made.origin = INSIDE  # nobody else knows the prefix
        return made

    def _sweep(self) -> None:
        self._watch.check()
        self._timer = self._runtime.clock.call_later(_SWEEP_SECONDS, self._sweep)

    async def _asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._probes is not None and scope["path"] in PATHS:
            await self._probes(scope, receive, send)
            return
        application = self._application or await self._load()
        if self._prefix:
            inside = scope["path"].startswith(f"{self._prefix}/")
            scope = without_prefix(scope, self._prefix) if inside else {**scope, "path": "/"}
        await application(scope, receive, send)

    async def _load(self) -> ASGIApp:
        # connectrpc takes a tenth of a second to load: calls go on meanwhile.
        module: Any = await asyncio.get_running_loop().run_in_executor(None, import_module, "linkspan.transport.asgi")
        options = {"max_message_bytes": self._max_bytes, "extra_app": self._extra_app}
        application: ASGIApp = module.Application(self._endpoints, self._answers, **options)
        if self._front is not None:
            application = self._front(application)
        self._application = application
        return application
