"""Where an app's operations are called: its own port, another ASGI application, and a door for calls inside the process."""

from __future__ import annotations

import asyncio
import json
import secrets
from importlib import import_module
from typing import TYPE_CHECKING, Any

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractAsyncContextManager, AsyncExitStack

    from linkspan.operation import ServiceContract
    from linkspan.places import Places
    from linkspan.ports import Runtime
    from linkspan.readiness import Readiness
    from linkspan.running import RunningService
    from linkspan.transport.endpoint import Endpoint, StreamEndpoint
    from linkspan.transport.grpc_server import GrpcServer
    from linkspan.transport.mount import Mounted
    from linkspan.transport.server import DirectServer
    from linkspan.transport.tls import Tls
    from linkspan.transport.web import Web

__all__ = ["Entrances"]


class Entrances:
    """The servers of one app. `listens` says whether its own port is opened when it starts; the others are, where they were asked for."""

    def __init__(self, runtime: Runtime, places: Places, readiness: Readiness, *, web: Web, tls: Tls) -> None:
        self.listens = True
        self._runtime = runtime
        self._places = places
        self._readiness = readiness
        self._tls = tls
        self._web = web
        self._contracts: list[type[ServiceContract]] = []
        self._endpoints: list[Endpoint | StreamEndpoint] = []
        self._server: DirectServer | None = None
        self._grpc: GrpcServer | None = None
        self._probes: DirectServer | None = None
        self._door: DirectServer | None = None
        self._mounted: Mounted | None = None

    @property
    def address(self) -> str:
        """Return where others call, empty where nothing listens."""
        return "" if self._server is None else self._server.address

    @property
    def grpc_address(self) -> str:
        """Return where gRPC peers call, empty where they cannot."""
        return "" if self._grpc is None else self._grpc.address

    @property
    def probes_address(self) -> str:
        """Return where nothing but probes is answered, empty where that was not asked for."""
        return "" if self._probes is None else self._probes.address

    @property
    def own_address(self) -> str:
        """Return where the services of this process call each other."""
        return self.address if self._door is None else self._door.address

    def mounted(self, lifespan: Callable[[], AbstractAsyncContextManager[None]], *, running: bool) -> Mounted:
        """Return the app as an ASGI application, the same one each time."""
        from linkspan.transport.mount import Mounted  # noqa: PLC0415 - only where it is used

        if self._mounted is None:
            if running:
                raise SetupError("The app is running already: call asgi() before it starts.")
            self._mounted = Mounted(lifespan)
        return self._mounted

    async def open_probes(self, stack: AsyncExitStack) -> None:
        """Answer probes before anything else runs, and until everything else has ended."""
        if self._places.probes is not None:
            self._probes = server = self._serving([], *self._places.probes, probes=True)
            await server.start()
            stack.push_async_callback(server.drain, 0.0)

    async def open(self, stack: AsyncExitStack, services: Collection[RunningService]) -> None:
        """Begin to answer for these services. Raises `SetupError` when the port cannot be had."""
        from linkspan.transport.health import FILE, Health  # noqa: PLC0415 - HTTP loads where it is served
        from linkspan.transport.reflection import Reflection  # noqa: PLC0415 - as above

        self._endpoints = [endpoint for each in services for endpoint in each.endpoints()]
        self._contracts = [contract for each in services for contract in each.declared.contracts]
        health = Health([contract.full_name for contract in self._contracts], self._readiness).endpoints()
        known = [*self._endpoints, *health, *Reflection(self._contracts, [FILE]).endpoints()]
        served = bool(self._endpoints)
        if served and self.listens:
            await self._listen(stack, self._endpoints + health)
        if served and (not self.listens or self._tls.cert is not None):
            await self._open_door(stack)
        if served and self._places.grpc is not None:
            await self._open_grpc(stack, known, *self._places.grpc)
        if self._mounted is not None:
            await self._answer_mounted(self._mounted, known)
            stack.push_async_callback(self._mounted.drain, 0.0)

    async def _listen(self, stack: AsyncExitStack, endpoints: list[Endpoint | StreamEndpoint]) -> None:
        tls = None
        if self._tls.cert is not None:
            from linkspan.transport.tls import server_context  # noqa: PLC0415 - only where it is used

            tls = server_context(self._tls)
        self._server = self._serving(endpoints, *self._places.http, probes=True, tls=tls)
        await self._server.start()
        stack.push_async_callback(self._server.drain, 0.0)

    async def keep_own(self, stack: AsyncExitStack) -> str:
        """Let calls and handlers under way go on calling the services of this process; return where, empty where nothing changes."""
        if self._door is not None or self._server is None:
            return ""
        return (await self._open_door(stack)).address

    async def drain(self, timeout: float) -> None:
        """Take no more calls from outside, let those under way finish for `timeout` seconds, then cut them."""
        await asyncio.gather(*(entrance.drain(timeout) for entrance in (self._server, self._grpc, self._mounted) if entrance is not None))

    def forget(self) -> None:
        """Be as before the start."""
        self._server = self._grpc = self._probes = self._door = None
        self._endpoints = []

    async def _open_door(self, stack: AsyncExitStack) -> DirectServer:
        """Open a way in on loopback below a path that nobody else can know."""
        self._door = door = self._serving(self._endpoints, "127.0.0.1", 0, prefix=f"/{secrets.token_urlsafe(24)}")
        await door.start()
        stack.push_async_callback(door.drain, 0.0)
        return door

    async def _open_grpc(self, stack: AsyncExitStack, endpoints: list[Endpoint | StreamEndpoint], host: str, port: int) -> None:
        from linkspan.transport.grpc_server import GrpcServer  # noqa: PLC0415 - loads grpcio, an extra

        self._grpc = server = GrpcServer(endpoints, host=host, port=port, runtime=self._runtime, tls=self._tls)
        await server.start()
        stack.push_async_callback(server.drain, 0.0)

    async def _answer_mounted(self, mounted: Mounted, endpoints: list[Endpoint | StreamEndpoint]) -> None:
        from linkspan.transport.endpoint import Answers  # noqa: PLC0415 - HTTP loads where it is served

        loop = asyncio.get_running_loop()
        module: Any = await loop.run_in_executor(None, import_module, "linkspan.transport.asgi")
        answers = Answers(self._runtime.ids)
        mounted.open(self._front(module.Application(endpoints, answers)), answers)

    def _serving(
        self, endpoints: list[Endpoint | StreamEndpoint], host: str, port: int, *, probes: bool = False, **more: Any
    ) -> DirectServer:
        from linkspan.transport.probes import Probes  # noqa: PLC0415 - HTTP loads where it is served
        from linkspan.transport.server import DirectServer  # noqa: PLC0415 - as above

        asked, browsers = Probes(self._readiness) if probes else None, bool(self._web.origins)
        options: dict[str, Any] = {"front": self._front, "browsers": browsers, "probes": asked, **more}
        return DirectServer(endpoints, host=host, port=port, runtime=self._runtime, **options)

    def _front(self, application: Any) -> Any:
        from linkspan.transport.web import web_front  # noqa: PLC0415 - HTTP loads where it is served

        return web_front(application, self._web, self._document)

    def _document(self) -> bytes:
        from linkspan.contracts.openapi import openapi  # noqa: PLC0415 - only where it is asked for

        return json.dumps(openapi(self._contracts), ensure_ascii=False).encode()
