"""Calls to one gRPC address over grpcio: the same deadline, headers, errors and cancellation as over Connect."""

from __future__ import annotations

import asyncio
import math
import re
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc

from linkspan.errors import Code, Error
from linkspan.transport.grpc_address import GRPCS, grpc_target
from linkspan.transport.grpc_status import error_from_grpc, metadata_of
from linkspan.transport.grpc_tls import channel_credentials
from linkspan.transport.tls import Tls
from linkspan.transport.unary import MAX_MESSAGE_BYTES, PROTO, UNWRITABLE, misfilled, registry_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from typing import TypeAlias

    from protobuf import Registry

    from linkspan.operation import Operation
    from linkspan.ports import Runtime
    from linkspan.transport.grpc_status import Metadata

    StreamCall: TypeAlias = grpc.aio.StreamStreamCall[bytes, bytes]
    UnaryCall: TypeAlias = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]

__all__ = ["GrpcChannel"]

_NAME: Final = re.compile(r"[0-9a-z_.-]+")  # gRPC's own rule
_OURS: Final = frozenset({"host", "te", "content-type", "content-length", "connection", "user-agent", "transfer-encoding"})


class GrpcChannel:
    """A channel to one address. Connects at the first call; `aclose` ends it. Belongs to the event loop that it is first used in."""

    def __init__(self, address: str, *, runtime: Runtime, max_message_bytes: int = MAX_MESSAGE_BYTES, tls: Tls | None = None) -> None:
        del runtime  # grpcio keeps its own clock
        self.address = address
        self._tls = (tls or Tls()) if address.startswith(GRPCS) else None
        self._target = grpc_target(address)
        self._max_bytes = max_message_bytes
        self._opened: grpc.aio.Channel | None = None
        self._closed = False
        self._unary: dict[str, UnaryCall] = {}
        self._registries: dict[str, Registry] = {}

    async def unary(self, operation: Operation[Any, Any], request: Any, *, headers: Mapping[str, str], timeout: float) -> Any:
        """Call an operation and return its response message.

        `timeout` (seconds) travels as `grpc-timeout` and is enforced by grpcio. Raises `Error` only, or `CancelledError`.
        UNAVAILABLE and DEADLINE_EXCEEDED mean *unknown* unless no connection was made.
        """
        if timeout <= 0:
            raise Error(Code.DEADLINE_EXCEEDED, f"Calling '{operation.path}' failed: its deadline had passed, give it more time.")
        metadata = _metadata(operation, headers)
        try:
            body = PROTO.write(request)
        except UNWRITABLE as error:
            raise misfilled(request) from error
        call = self._unary.get(operation.path)
        if call is None:
            call = self._unary[operation.path] = self._channel().unary_unary(operation.path)
        try:
            answer = await call(body, timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise self._failed(operation, error) from None
        except asyncio.CancelledError:
            raise self._ended() from None
        return PROTO.read(answer, operation.response, Code.INTERNAL)

    async def stream(
        self, operation: Operation[Any, Any], requests: AsyncIterator[Any], *, headers: Mapping[str, str], timeout: float
    ) -> AsyncGenerator[Any, None]:
        """Call an operation with a stream: send its requests, and yield its responses. One is a stream, too.

        `timeout` (seconds, may be infinite) travels as `grpc-timeout`. Closing this ends the call. Raises `Error`, or what the
        requests raise.
        """
        if timeout <= 0:
            raise Error(Code.DEADLINE_EXCEEDED, f"Calling '{operation.path}' failed: its deadline had passed, give it more time.")
        metadata = _metadata(operation, headers)
        channel: Any = self._channel()
        start = channel.stream_stream(operation.path)  # on the wire all kinds are alike
        call = start(timeout=None if timeout == math.inf else timeout, metadata=metadata)
        sending = asyncio.ensure_future(_send(call, operation, requests))
        sending.add_done_callback(partial(_end_with, call))
        try:
            while (message := await self._read(operation, call, sending)) is not None:
                yield PROTO.read(message, operation.response, Code.INTERNAL)
        finally:
            sending.cancel()
            call.cancel()
            await asyncio.wait([sending])

    async def _read(self, operation: Operation[Any, Any], call: StreamCall, sending: asyncio.Future[None]) -> bytes | None:
        """Return the next response, None at the end."""
        try:
            message: Any = await call.read()
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            if (failed := _failure(sending)) is not None:
                raise failed from None
            raise (self._failed(operation, error) if isinstance(error, grpc.aio.AioRpcError) else self._ended()) from None
        return None if message is grpc.aio.EOF else message

    async def aclose(self) -> None:
        """Close the connection; calls in flight end with UNAVAILABLE. Idempotent."""
        self._closed = True
        channel, self._opened = self._opened, None
        self._unary.clear()
        if channel is not None:
            await channel.close()

    def _channel(self) -> grpc.aio.Channel:
        if self._closed:
            raise _closed(self.address)
        if self._opened is None:
            if self._tls is None:
                self._opened = grpc.aio.insecure_channel(self._target, self._options())
            else:
                self._opened = grpc.aio.secure_channel(self._target, channel_credentials(self._tls), self._options())
        return self._opened

    def _options(self) -> list[tuple[str, Any]]:
        return [
            ("grpc.enable_http_proxy", 0),  # a proxy of the environment is for the internet, not for neighbours
            ("grpc.enable_retries", 0),  # what is tried again, and how often, is decided above, once for all paths
            ("grpc.service_config_disable_resolution", 1),  # a TXT record must not change how calls are made
            ("grpc.use_local_subchannel_pool", 1),  # else channels to one address share a connection and its fate
            ("grpc.max_receive_message_length", self._max_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 100),  # a peer that restarts is back sooner than grpcio's second
            ("grpc.max_reconnect_backoff_ms", 5_000),
        ]

    def _failed(self, operation: Operation[Any, Any], error: grpc.aio.AioRpcError) -> Error:
        registry = self._registries.get(operation.path)
        if registry is None:
            registry = self._registries[operation.path] = registry_of(operation.request, operation.response)
        return error_from_grpc(error.code(), error.details(), error.trailing_metadata() or (), registry)

    def _ended(self) -> BaseException:
        """Return what a cancelled call means: grpcio ends calls of a channel that is closed in the same way."""
        task = asyncio.current_task()
        if self._closed and (task is None or not task.cancelling()):
            return _closed(self.address)
        return asyncio.CancelledError()


async def _send(call: StreamCall, operation: Operation[Any, Any], requests: AsyncIterator[Any]) -> None:
    """Write the requests; a server that has answered without reading them all is left alone."""
    closing: Any = getattr(requests, "aclose", None)
    try:
        async for request in requests:
            if type(request) is not operation.request:
                text = f"'{operation.full_name}' was given a {type(request).__name__} in its stream: send its own requests."
                raise Error(Code.INVALID_ARGUMENT, text)
            try:
                body = PROTO.write(request)
            except UNWRITABLE as error:
                raise misfilled(request) from error
            try:
                await _write(call, body)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # the call is over; who reads it learns how
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.done_writing()
    finally:
        if closing is not None:
            await closing()


async def _write(call: Any, body: bytes) -> None:
    """Write one request. Raises `InvalidStateError` when the call is over.

    grpcio's own `write` puts INTERNAL in the place of the server's status when the two cross: a refusal would be lost. Where the
    parts beneath it have other names, it is used all the same.
    """
    parts: Any = getattr(call, "_cython_call", None)
    if not hasattr(parts, "send_serialized_message"):
        await call.write(body)
        return
    if call.done():
        raise asyncio.InvalidStateError
    await call.wait_for_connection()
    try:
        await parts.send_serialized_message(body)
    except grpc.aio.InternalError:
        raise asyncio.InvalidStateError from None


def _failure(sending: asyncio.Future[None]) -> BaseException | None:
    return sending.exception() if sending.done() and not sending.cancelled() else None


def _end_with(call: StreamCall, sending: asyncio.Future[None]) -> None:
    """End the call whose requests failed."""
    if _failure(sending) is not None:
        call.cancel()


def _closed(address: str) -> Error:
    return Error(Code.UNAVAILABLE, f"Calling '{address}' failed: the channel was closed, make calls while it is open.")


def _metadata(operation: Operation[Any, Any], headers: Mapping[str, str]) -> Metadata:
    """Return the caller's headers as metadata, names in lower case; refuses what would not arrive as it is."""
    try:
        found = {name.lower(): value for name, value in headers.items()}
        for name in found:
            if name in _OURS or name.startswith("grpc-"):
                raise Error(Code.INVALID_ARGUMENT, f"Sending header '{name}' failed: the channel sets it, leave it out.")
        if all(_NAME.fullmatch(name) and value.isascii() and value.isprintable() for name, value in found.items()):
            return metadata_of(found)
    except (TypeError, ValueError, AttributeError):
        pass
    text = f"Calling '{operation.path}' failed: header names and values must be printable ASCII, and values of '-bin' headers base64."
    raise Error(Code.INVALID_ARGUMENT, text)
