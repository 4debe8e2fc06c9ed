"""Unary Connect calls to one address: connectrpc's client over our transport, with linkspan's errors and cancellation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from connectrpc.client import ConnectClient
from connectrpc.code import Code as WireCode
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from pyqwest import Client

from linkspan.errors import Code, Error
from linkspan.transport.http import HttpTransport
from linkspan.transport.wire import MAX_MESSAGE_BYTES, TIMEOUT, BinaryCodec, error_from, format_timeout, registry_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from protobuf import Registry

    from linkspan.operation import Operation
    from linkspan.ports import Runtime
    from linkspan.transport.http import PoolLimits

__all__ = ["ConnectChannel", "method_of"]

_USER_AGENT = "linkspan"


def method_of(operation: Operation[Any, Any]) -> MethodInfo[Any, Any]:
    """Return connectrpc's form of an operation. POST only: its GET is neither deterministic nor bounded in size."""
    return MethodInfo(
        name=operation.rpc_name,
        service_name=operation.service_name,
        input=operation.request,
        output=operation.response,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=StreamType.UNARY,
    )


class ConnectChannel:
    """A channel to one address. Connects at the first call; `aclose` ends it."""

    def __init__(
        self,
        address: str,
        *,
        runtime: Runtime,
        pool: PoolLimits | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._transport = HttpTransport(address, clock=runtime.clock, limits=pool, max_response_bytes=max_message_bytes, tls=tls)
        self.address = self._transport.address.text
        self._client = ConnectClient(
            self.address,
            codec=BinaryCodec(WireCode.INTERNAL),
            accept_compression=(),
            send_compression=None,
            http_client=Client(self._transport),
        )
        self._methods: dict[str, MethodInfo[Any, Any]] = {}
        self._registries: dict[str, Registry] = {}

    async def unary(self, operation: Operation[Any, Any], request: Any, *, headers: Mapping[str, str], timeout: float) -> Any:
        """Call an operation and return its response message.

        `timeout` (seconds) travels as `connect-timeout-ms` and is enforced here. Raises `Error` only, or `CancelledError`.
        UNAVAILABLE and DEADLINE_EXCEEDED mean *unknown* unless no connection was made.
        """
        if timeout <= 0:
            raise Error(Code.DEADLINE_EXCEEDED, f"Calling '{operation.path}' failed: its deadline had passed, give it more time.")
        method = self._methods.get(operation.path)
        if method is None:
            method = self._methods[operation.path] = method_of(operation)
        sent = {"user-agent": _USER_AGENT, **headers, TIMEOUT: format_timeout(timeout)}
        try:
            return await self._client.execute_unary(request=request, method=method, headers=sent)
        except ConnectError as error:
            raise self._translated(error, operation) from None
        except (TypeError, ValueError, AttributeError) as error:
            text = f"Calling '{operation.path}' failed: header names and values must be valid HTTP header text."
            raise Error(Code.INVALID_ARGUMENT, text) from error

    async def aclose(self) -> None:
        """Close the connections; calls in flight end with UNAVAILABLE. Idempotent."""
        await self._client.close()
        await self._transport.aclose()

    def _translated(self, error: ConnectError, operation: Operation[Any, Any]) -> BaseException:
        """Return what the caller should see; connectrpc hides our own errors and cancellation behind codes of its own."""
        cause = error.__cause__
        if isinstance(cause, (asyncio.CancelledError, Error)):
            return cause
        if cause is not None and error.code is WireCode.UNAVAILABLE:
            # connectrpc calls every exception UNAVAILABLE; what is no network failure would be tried again for ever.
            return Error(Code.INTERNAL, f"Reading the answer to '{operation.path}' failed: the peer does not speak Connect properly.")
        registry = self._registries.get(operation.path)
        if registry is None:
            registry = self._registries[operation.path] = registry_of(operation.request, operation.response)
        return error_from(error, registry)
