"""HTTP/1.1 for streams, inside the running loop: a connection per stream, both directions at once, neither ahead of its reader.

- The peer is read only as fast as the answers are taken, and written only as fast as it reads.
- What was not read when the caller stops is thrown away with the connection, which is how the peer learns of it.
- A connection that closes before the stream's end means *unknown*, as for unary calls (UNAVAILABLE).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import httptools

from linkspan.errors import Code, Error
from linkspan.transport.envelopes import EnvelopeBuffer
from linkspan.transport.tls import Tls, client_context, lost_error, unreached

if TYPE_CHECKING:
    import ssl

    from linkspan.transport.http import Address, PoolLimits

__all__ = ["StreamConnection", "StreamConnections"]

_ENOUGH_BYTES: Final = 64 * 1024
_INFORMATIONAL: Final = 200  # statuses below announce a response, they are not one


class StreamConnection(asyncio.Protocol):
    """One stream's connection: what is written goes out as it is, what comes is cut into envelopes."""

    def __init__(self, address: Address, *, max_header_bytes: int, max_bytes: int) -> None:
        self._address = address
        self._max_header_bytes = max_header_bytes
        self._max_bytes = max_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._moved, self._writable = asyncio.Event(), asyncio.Event()
        self._writable.set()
        self._head_bytes = 0
        self._headed = self._paused = False
        self._error: BaseException | None = None
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = EnvelopeBuffer(address.text, max_bytes)
        self.complete = False
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # --- what the channel asks

    async def write(self, data: bytes) -> None:
        """Write, and wait until the peer keeps up."""
        if self._transport is not None:
            self._transport.write(data)
        await self._writable.wait()

    async def until_headed(self) -> None:
        """Wait for status and headers of the answer. Raises `Error`."""
        while not self._headed:
            await self._move()

    async def envelope(self) -> tuple[int, bytes] | None:
        """Return the next envelope, None at the end of the body. Raises `Error`, or what `fail` was given."""
        while (found := self.body.take()) is None:
            if self.complete:
                return None
            await self._move()
        return found

    async def rest(self) -> bytes:
        """Return the whole body, for an answer that is no stream. Raises `Error`."""
        while not self.complete:
            if len(self.body) > self._max_bytes:
                raise Error(Code.INTERNAL, f"'{self._address.text}' refused the stream with more than {self._max_bytes} bytes of text.")
            await self._move()
        return self.body.all()

    def fail(self, error: BaseException) -> None:
        """End the reader with an error, once it has read what came before."""
        if self._error is None and not self.complete:
            self._error = error
        self._moved.set()

    def close(self) -> None:
        """Close: at once where anything is left to come or to go."""
        if self._transport is not None:
            if self.complete and not self._transport.get_write_buffer_size():
                self._transport.close()
            else:
                self._transport.abort()

    async def _move(self) -> None:
        """Wait until something has come. Raises what ended it."""
        if self._error is not None:
            raise self._error
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
        self._moved.clear()
        await self._moved.wait()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # a stream protocol gets a stream transport
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if not self._headed:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.fail(Error(Code.INTERNAL, f"Reading the answer of '{self._address.text}' failed: it is not HTTP/1.1."))
            self.close()
            return
        if not self._headed and self._head_bytes > self._max_header_bytes:
            text = f"'{self._address.text}' answered with a headers above {self._max_header_bytes} bytes: check what listens there."
            self.fail(Error(Code.RESOURCE_EXHAUSTED, text))
            self.close()
        elif len(self.body) > _ENOUGH_BYTES and self.body.ready and not self.complete and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """Hold the writer."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let the writer go on."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the reader, where the stream has not ended."""
        text = f"'{self._address.text}' closed the connection before the stream's end: what was asked may or may not have been done."
        self.fail(lost_error(exc, self._address.text, text))
        self._writable.set()
        if not self.lost.done():
            self.lost.set_result(None)

    # --- httptools callbacks

    def on_message_begin(self) -> None:
        """Forget an announcement."""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers after the body are not ours to read."""
        if not self._headed:
            self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1").strip()))

    def on_headers_complete(self) -> None:
        """Note the status."""
        self.status = self._parser.get_status_code()
        if self.status >= _INFORMATIONAL:
            self._headed = True
            self._moved.set()

    def on_body(self, body: bytes) -> None:
        """Keep a piece."""
        self.body.feed(body)
        self._moved.set()

    def on_message_complete(self) -> None:
        """Note the end of the body."""
        if self._headed:
            self.complete = True
            self._moved.set()


class StreamConnections:
    """Opens a connection for each stream to one address, and closes those that are open."""

    def __init__(self, address: Address, *, limits: PoolLimits, max_bytes: int, tls: ssl.SSLContext | None) -> None:
        self.address = address
        self._limits = limits
        self._max_bytes = max_bytes
        self._tls = (tls or client_context(Tls())) if address.tls else None
        self._open: set[StreamConnection] = set()
        self._closed = False

    async def open(self) -> StreamConnection:
        """Connect. Raises `Error(UNAVAILABLE)`; nothing was asked of the peer then."""
        loop, address, limits = asyncio.get_running_loop(), self.address, self._limits
        if self._closed:
            raise Error(Code.UNAVAILABLE, f"The channel to '{address.text}' is closed: make a new one.")
        name = address.host if self._tls else None
        try:
            async with asyncio.timeout(limits.connect_timeout):
                _, connection = await loop.create_connection(self._made, address.host, address.port, ssl=self._tls, server_hostname=name)
        except OSError as error:  # a TimeoutError is one, and an SSLError
            raise unreached(error, address.text) from error
        self._open.add(connection)
        return connection

    def done(self, connection: StreamConnection) -> None:
        """Close a connection whose stream has ended, or has nobody who reads it."""
        self._open.discard(connection)
        connection.close()

    async def aclose(self) -> None:
        """End all streams with UNAVAILABLE. Idempotent."""
        self._closed = True
        connections, self._open = self._open, set()
        for connection in connections:
            text = f"The channel to '{self.address.text}' was closed: what was asked may or may not have been done."
            connection.fail(Error(Code.UNAVAILABLE, text))
            connection.close()
        for connection in connections:
            await asyncio.shield(connection.lost)

    def _made(self) -> StreamConnection:
        return StreamConnection(self.address, max_header_bytes=self._limits.max_header_bytes, max_bytes=self._max_bytes)
