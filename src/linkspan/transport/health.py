"""The health service that gRPC peers, load balancers and orchestrators ask: `grpc.health.v1`, over every protocol that is served.

The whole process is called '', each service contract by its full name. A process that may not be given work is NOT_SERVING, and
what the checks found stays inside: callers get one word. See https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from linkspan.errors import Code, Error
from linkspan.operation import Query, ServerStream, query, stream
from linkspan.transport.endpoint import STOPPING, Endpoint, StreamEndpoint
from linkspan.transport.health_pb import HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable

    from linkspan.readiness import Readiness
    from linkspan.transport.endpoint import Inbound

__all__ = ["CHECK", "FILE", "LIST", "WATCH", "Health"]

Status = HealthCheckResponse.ServingStatus

FILE: Final = HealthCheckResponse.desc().file
CHECK: Final[Query[HealthCheckRequest, HealthCheckResponse]] = query(HealthCheckRequest, HealthCheckResponse)
LIST: Final[Query[HealthListRequest, HealthListResponse]] = query(HealthListRequest, HealthListResponse)
WATCH: Final[ServerStream[HealthCheckRequest, HealthCheckResponse]] = query(HealthCheckRequest, stream(HealthCheckResponse))
for _operation, _name in ((CHECK, "Check"), (LIST, "List"), (WATCH, "Watch")):
    _operation.bind("grpc.health.v1", "Health", _name.lower(), _name)

_LOOKS: Final = 1.0
"""Seconds between two looks of a watcher; the start and the end of the app are told at once."""


class Health:
    """Answers for the service contracts that run here. `ready` decides about all of them: they share broker, stores and fate."""

    def __init__(self, contracts: Iterable[str], readiness: Readiness) -> None:
        self._names = frozenset(contracts) | {""}
        self._readiness = readiness

    def endpoints(self) -> list[Endpoint | StreamEndpoint]:
        """Return what a server serves."""
        return [Endpoint(CHECK, self._check), Endpoint(LIST, self._list), StreamEndpoint(WATCH, self._watch)]

    async def _check(self, request: HealthCheckRequest, _inbound: Inbound) -> HealthCheckResponse:
        if request.service not in self._names:
            text = f"Checking '{request.service}' failed: this server has no such service, name a service contract or nothing."
            raise Error(Code.NOT_FOUND, text)
        return HealthCheckResponse(status=await self._status())

    async def _list(self, _request: HealthListRequest, _inbound: Inbound) -> HealthListResponse:
        status = await self._status()
        return HealthListResponse(statuses={name: HealthCheckResponse(status=status) for name in sorted(self._names)})

    async def _watch(self, requests: AsyncIterator[Any], _inbound: Inbound) -> AsyncGenerator[Any, None]:
        """Yield the status and then each other one; ends when the app does, so that nobody who watches holds it up."""
        name = (await anext(requests)).service
        if name not in self._names:
            yield HealthCheckResponse(status=Status.SERVICE_UNKNOWN)
        told = None
        while not self._readiness.draining:
            if name in self._names and (status := await self._status()) is not told:
                told = status
                yield HealthCheckResponse(status=status)
            await self._readiness.changed(_LOOKS)
        if name in self._names:
            yield HealthCheckResponse(status=Status.NOT_SERVING)
        raise Error(Code.UNAVAILABLE, STOPPING)

    async def _status(self) -> HealthCheckResponse.ServingStatus:
        return Status.SERVING if await self._readiness.ready() else Status.NOT_SERVING
