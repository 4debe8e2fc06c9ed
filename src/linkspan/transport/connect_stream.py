"""Connect streams to one address: requests and responses in envelopes, over a connection of their own."""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from linkspan.errors import Code, Error
from linkspan.transport.envelopes import END, STREAM_KIND, read_end, wrapped
from linkspan.transport.unary import PROTO, TIMEOUT, UNWRITABLE, format_timeout, misfilled, read_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from protobuf import Registry

    from linkspan.operation import Operation
    from linkspan.transport.http_stream import StreamConnection, StreamConnections

__all__ = ["connect_stream"]

_OK: Final = 200
_PLAIN: Final = frozenset({"", "identity"})


async def connect_stream(
    connections: StreamConnections,
    operation: Operation[Any, Any],
    requests: AsyncIterator[Any],
    *,
    lines: str,
    timeout: float,
    registry: Registry,
) -> AsyncGenerator[Any, None]:
    """Call an operation with a stream and yield its responses. Raises `Error`, or what `requests` raise."""
    if timeout <= 0:
        raise Error(Code.DEADLINE_EXCEEDED, f"Calling '{operation.path}' failed: its deadline had passed, give it more time.")
    limit = "" if timeout == math.inf else f"{TIMEOUT}: {format_timeout(timeout)}\r\n"
    address = connections.address
    head = f"POST {address.prefix}{operation.path} HTTP/1.1\r\nhost: {address.authority}\r\ncontent-type: {STREAM_KIND}\r\n"
    head += f"connect-protocol-version: 1\r\n{lines}{limit}"
    connection = await connections.open()
    sending = asyncio.ensure_future(_send(connection, operation, head, requests))
    sending.add_done_callback(lambda done: _failed(connection, done))
    try:
        await connection.until_headed()
        await _check(connection, operation, registry)
        while (found := await connection.envelope()) is not None:
            flags, message = found
            if flags & END:
                _end(connection, message, registry)
                return
            yield PROTO.read(message, operation.response, Code.INTERNAL)
        raise Error(Code.INTERNAL, f"'{address.text}' stopped in the middle of the stream: it does not speak Connect properly.")
    finally:
        sending.cancel()
        connections.done(connection)
        await asyncio.wait([sending])


async def _send(connection: StreamConnection, operation: Operation[Any, Any], head: str, requests: AsyncIterator[Any]) -> None:
    """Write the requests: one as a body of known length, many as chunks."""
    async with _closing(requests):
        if not operation.client_streaming:
            body = b"".join([_written(request) async for request in requests])
            await connection.write(f"{head}content-length: {len(body)}\r\n\r\n".encode("ascii") + body)
            return
        await connection.write(f"{head}transfer-encoding: chunked\r\n\r\n".encode("ascii"))
        async for request in requests:
            if type(request) is not operation.request:
                text = f"'{operation.full_name}' was given a {type(request).__name__} in its stream: send its own requests."
                raise Error(Code.INVALID_ARGUMENT, text)
            piece = _written(request)
            await connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await connection.write(b"0\r\n\r\n")


def _closing(requests: Any) -> Any:
    """Close a generator of requests when nobody reads it any more, so that its clean-up runs."""
    return aclosing(requests if hasattr(requests, "aclose") else _Open())


class _Open:
    async def aclose(self) -> None:
        """Do nothing: an iterator without an end of its own is its owner's."""


def _written(request: Any) -> bytes:
    try:
        return wrapped(PROTO.write(request))
    except UNWRITABLE as error:
        raise misfilled(request) from error


def _failed(connection: StreamConnection, sent: asyncio.Future[None]) -> None:
    if not sent.cancelled() and (error := sent.exception()) is not None:
        connection.fail(error)


async def _check(connection: StreamConnection, operation: Operation[Any, Any], registry: Registry) -> None:
    """Raise what an answer means that is no stream: the peer's `Error`, or what its HTTP status stands for."""
    headers = dict(connection.headers)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if connection.status != _OK:
        readable = kind == "application/json" and headers.get("content-encoding", "") in _PLAIN
        try:
            raise read_error(connection.status, await connection.rest() if readable else b"", registry)
        except ValueError as error:
            raise _foreign(operation) from error
    if kind != STREAM_KIND:
        code = Code.INTERNAL if kind.startswith("application/connect+") else Code.UNKNOWN
        raise Error(code, f"'{operation.path}' was answered with '{kind}' instead of '{STREAM_KIND}': check what listens at the address.")
    if headers.get("connect-content-encoding", "") not in _PLAIN or headers.get("content-encoding", "") not in _PLAIN:
        raise _foreign(operation)


def _end(connection: StreamConnection, message: bytes, registry: Registry) -> None:
    error = read_end(connection.body.where, message, registry)
    if error is None and len(connection.body):
        error = Error(Code.INTERNAL, f"'{connection.body.where}' went on after the stream's end: it does not speak Connect properly.")
    if error is not None:
        raise error


def _foreign(operation: Operation[Any, Any]) -> Error:
    return Error(Code.INTERNAL, f"Reading the answer to '{operation.path}' failed: the peer does not speak Connect properly.")
