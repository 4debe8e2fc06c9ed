"""Connect calls to one address: a protobuf message by POST over our own transport, answered by one or by a coded error; and streams."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from linkspan.errors import Code, Error
from linkspan.transport.connect_stream import connect_stream
from linkspan.transport.get import get_path
from linkspan.transport.http import TRANSPORT_HEADERS, HttpTransport, PoolLimits
from linkspan.transport.http_stream import StreamConnections
from linkspan.transport.unary import (
    MAX_MESSAGE_BYTES,
    PROTO,
    TIMEOUT,
    UNWRITABLE,
    format_timeout,
    misfilled,
    read_error,
    registry_of,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from protobuf import Registry

    from linkspan.operation import Operation
    from linkspan.ports import Runtime
    from linkspan.transport.http import Answer

__all__ = ["ConnectChannel"]

_OK: Final = 200
_KIND: Final = f"application/{PROTO.name}"
_AGENT: Final = "user-agent: linkspan\r\n"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_OURS: Final = TRANSPORT_HEADERS | {"content-type", "content-encoding", "accept-encoding", "connect-protocol-version", TIMEOUT}
_MOST_NAMES: Final = 1000  # header names remembered as fit; more than any contract needs


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
        limits = pool or PoolLimits()
        self._streams = StreamConnections(self._transport.address, limits=limits, max_bytes=max_message_bytes, tls=tls)
        self._heads: dict[str, str] = {}
        self._registries: dict[str, Registry] = {}
        self._names: set[str] = set()

    async def unary(self, operation: Operation[Any, Any], request: Any, *, headers: Mapping[str, str], timeout: float) -> Any:
        """Call an operation and return its response message.

        `timeout` (seconds) travels as `connect-timeout-ms` and is enforced here. Raises `Error` only, or `CancelledError`.
        UNAVAILABLE and DEADLINE_EXCEEDED mean *unknown* unless no connection was made.
        """
        if timeout <= 0:
            raise Error(Code.DEADLINE_EXCEEDED, f"Calling '{operation.path}' failed: its deadline had passed, give it more time.")
        head = self._heads.get(operation.path) or self._head(operation)
        lines = self._lines(operation, headers)
        limit = f"{TIMEOUT}: {format_timeout(timeout)}\r\n"
        try:
            path = get_path(operation.path, request) if getattr(operation, "cache", None) else ""
            body = b"" if path else PROTO.write(request)
        except UNWRITABLE as error:
            raise misfilled(request) from error
        asked = f"{self._asking(path)}{lines}{limit}\r\n" if path else f"{head}{lines}{limit}content-length: {len(body)}\r\n\r\n"
        answer = await self._transport.send(asked.encode("ascii") + body, timeout)
        kind = coding = ""
        for name, value in answer.headers:
            if name == "content-type":
                kind = value
            elif name == "content-encoding":
                coding = value
        if answer.status != _OK or kind != _KIND or coding:
            self._check(operation, answer, kind.partition(";")[0].strip().lower(), coding)
        return PROTO.read(answer.body, operation.response, Code.INTERNAL)

    async def stream(
        self, operation: Operation[Any, Any], requests: AsyncIterator[Any], *, headers: Mapping[str, str], timeout: float
    ) -> AsyncGenerator[Any, None]:
        """Call an operation with a stream: send its requests, and yield its responses. One is a stream, too.

        `timeout` (seconds, may be infinite) travels as `connect-timeout-ms`; ending what takes longer is the caller's, by
        closing this. Raises `Error`, or what the requests raise.
        """
        lines = self._lines(operation, headers)
        registry = self._registry(operation)
        responses = connect_stream(self._streams, operation, requests, lines=lines, timeout=timeout, registry=registry)
        async with aclosing(responses):
            async for response in responses:
                yield response

    async def aclose(self) -> None:
        """Close the connections; calls in flight end with UNAVAILABLE. Idempotent."""
        await self._streams.aclose()
        await self._transport.aclose()

    def _head(self, operation: Operation[Any, Any]) -> str:
        address = self._transport.address
        head = f"POST {address.prefix}{operation.path} HTTP/1.1\r\nhost: {address.authority}\r\n"
        head += f"content-type: {_KIND}\r\nconnect-protocol-version: 1\r\n"
        self._heads[operation.path] = head
        return head

    def _asking(self, path: str) -> str:
        address = self._transport.address
        return f"GET {address.prefix}{path} HTTP/1.1\r\nhost: {address.authority}\r\n"

    def _lines(self, operation: Operation[Any, Any], headers: Mapping[str, str]) -> str:
        """Return the caller's headers as they are written; refuses what would not arrive as it is."""
        try:
            for name in headers:
                if name not in self._names:
                    self._admit(name)
            values = "".join(headers.values())
        except (TypeError, ValueError) as error:
            raise _unfit(operation) from error
        if not (values.isascii() and values.isprintable()):
            raise _unfit(operation)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        return lines if "user-agent" in headers else _AGENT + lines

    def _admit(self, name: str) -> None:
        if name.lower() in _OURS:
            raise Error(Code.INVALID_ARGUMENT, f"Sending header '{name}' failed: the channel sets it, leave it out.")
        if not _TOKEN.fullmatch(name):
            raise ValueError(name)
        if len(self._names) < _MOST_NAMES:
            self._names.add(name)

    def _check(self, operation: Operation[Any, Any], answer: Answer, kind: str, coding: str) -> None:
        """Raise what an answer means that is no plain message: the peer's `Error`, or what its HTTP status stands for."""
        failed = answer.status != _OK
        if failed and kind != "application/json":
            raise read_error(answer.status, b"", self._registry(operation))
        if coding not in {"", "identity"}:
            raise _foreign(operation)
        if failed:
            try:
                error = read_error(answer.status, answer.body, self._registry(operation))
            except ValueError as reason:
                raise _foreign(operation) from reason
            raise error
        if kind != _KIND:
            code = Code.INTERNAL if kind.startswith("application/") else Code.UNKNOWN
            raise Error(code, f"'{operation.path}' was answered with '{kind}' instead of '{_KIND}': check what listens at the address.")

    def _registry(self, operation: Operation[Any, Any]) -> Registry:
        registry = self._registries.get(operation.path)
        if registry is None:
            registry = self._registries[operation.path] = registry_of(operation.request, operation.response)
        return registry


def _unfit(operation: Operation[Any, Any]) -> Error:
    text = f"Calling '{operation.path}' failed: header names and values must be valid HTTP header text in ASCII."
    return Error(Code.INVALID_ARGUMENT, text)


def _foreign(operation: Operation[Any, Any]) -> Error:
    return Error(Code.INTERNAL, f"Reading the answer to '{operation.path}' failed: the peer does not speak Connect properly.")
