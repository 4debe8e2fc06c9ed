"""The hot path on a nats-py connection: frames are parsed and written without a message object, queue, task or timer each.

nats-py keeps connecting, TLS, login, ping and reconnect. Its private attributes that this module touches are listed in `NEEDED`
and checked once per connection; where one is missing, or the version was not tried, `check` says so and the public API is used.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError, ProtocolError
from nats.protocol.parser import Parser

from linkspan.brokers.nats_link import MAX_UNSENT

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.subscription import Subscription

    from linkspan.brokers.nats_link import Listener, Receive

__all__ = ["HotLink", "HotParser", "check"]

logger = logging.getLogger("linkspan.nats")

TRIED = ((2, 16), (2, 17))
"""Versions of nats-py this was tried with: from the first, below the second."""

HIGH_WATER = 1 << 20
"""Bytes that may wait in the socket's buffer; above, nats-py's flusher takes over, which waits for it to drain."""

_MESSAGES = (b"HMSG ", b"MSG ")
_MAX_LINE, _MAX_FRAME = 1 << 20, 128 << 20  # far above what nats-server sends; more is not NATS
_WITH_ALL, _WITH_REPLY = 6, 5
NEEDED = ("_ps", "_pending", "_pending_data_size", "_transport", "_flush_queue", "_subs", "_process_msg")


def check(client: Client) -> str | None:
    """Return why the hot path cannot be used on a connected client, or None."""
    found = tuple(int(part) for part in version("nats-py").split(".")[:2])
    if not TRIED[0] <= found < TRIED[1]:
        return f"nats-py {found[0]}.{found[1]} was not tried"
    missing = [name for name in NEEDED if not hasattr(client, name)]
    if missing:
        return f"nats-py has no {', '.join(missing)}"
    internals: Any = client
    if type(internals._ps) is not Parser or not inspect.iscoroutinefunction(Parser.parse):
        return "nats-py's parser is another one"
    if type(internals._transport) is not TcpTransport or not hasattr(internals._transport, "_io_writer"):
        return "the connection is not plain TCP or TLS"
    if not isinstance(internals._pending, list) or not isinstance(internals._flush_queue, asyncio.Queue):
        return "nats-py buffers in another way"
    return None


class HotParser(Parser):
    """Split the stream into frames: claimed subscriptions get theirs at once, nats-py gets all others, a frame at a time."""

    def __init__(self, client: Client) -> None:
        self.sinks: dict[bytes, Receive] = {}
        self._rest = b""
        self._need = 0
        self._chunks: list[bytes] = []
        self._epoch = 0
        cast("Any", super()).__init__(client)  # untyped in nats-py

    def reset(self) -> None:
        """Forget a half-read frame; nats-py calls this when a connection is lost."""
        cast("Any", super()).reset()  # untyped in nats-py
        self._rest = b""
        self._need = 0
        self._chunks = []
        self._epoch += 1

    def take_over(self, parser: Parser) -> None:
        """Go on where nats-py's own parser stands: between frames, maybe in the middle of a control line."""
        self._rest = bytes(parser.buf)

    async def parse(self, data: bytes = b"") -> None:
        """Read what the server sent. Raises `ProtocolError` on what is not NATS: nats-py connects again then."""
        try:
            await self._parse(data)
        except (OSError, NatsError):
            raise
        except Exception as error:  # whatever nats-py makes of it (an INFO that is a number): its reader would end without a word
            raise ProtocolError from error

    async def _parse(self, data: bytes) -> None:
        if self._need:  # in the middle of a large frame: collect, so that it is copied once
            self._chunks.append(data)
            self._need -= len(data)
            if self._need > 0:
                return
            data, self._chunks, self._need = b"".join(self._chunks), [], 0
        elif self._rest:
            data = self._rest + data
        self._rest = b""
        position, epoch, size, sinks = 0, self._epoch, len(data), self.sinks
        while (end := data.find(b"\r\n", position)) >= 0:
            start = end + 2
            if data.startswith(_MESSAGES, position):
                fields = data[position:end].split()
                begin, start = start, start + int(fields[-1]) + 2
                if not begin < start <= size:
                    self._collect(data[position:], start - size)
                    return
                sink = sinks.get(fields[2])
                if sink is not None:
                    _hand_over(sink, fields, data, begin, start - 2)
                    position = start
                    continue
            await super().parse(data[position:start])
            if self._epoch != epoch:
                return
            position = start
        self._rest = data[position:] if position else data
        if len(self._rest) > _MAX_LINE:
            raise ProtocolError

    def _collect(self, head: bytes, missing: int) -> None:
        """Wait for the rest of a frame, if it can be one."""
        if not 0 < missing <= _MAX_FRAME:
            raise ProtocolError
        self._need, self._chunks = missing, [head]


def _hand_over(sink: Receive, fields: list[bytes], data: bytes, begin: int, end: int) -> None:
    """Call the receiver of `MSG subject sid [reply] bytes` or `HMSG subject sid [reply] header-bytes bytes`."""
    try:
        if len(fields) == _WITH_ALL:
            split = begin + int(fields[4])
            sink(fields[1], fields[3], data[begin:split], data[split:end])
        elif fields[0] == b"MSG":
            sink(fields[1], fields[3] if len(fields) == _WITH_REPLY else b"", b"", data[begin:end])
        else:
            split = begin + int(fields[3])
            sink(fields[1], b"", data[begin:split], data[split:end])
    except Exception:
        logger.exception("a nats receiver failed")


class HotLink:
    """Write to nats-py's buffer, once per turn of the loop."""

    def __init__(self, client: Client) -> None:
        self._client: Any = client
        self._parser = HotParser(client)
        self._parser.take_over(self._client._ps)
        self._client._ps = self._parser
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._add = self._out.append
        self._full = False

    def send(self, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        """Frame a message."""
        if not self._out:
            self._loop.call_soon(self._write)
        if headers:
            length = len(headers) + 12
            self._add(b"HPUB %b %b %d %d\r\nNATS/1.0\r\n%b\r\n%b\r\n" % (subject, reply, length, length + len(data), headers, data))
        else:
            self._add(b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(data), data))

    def ack(self, reply: bytes) -> None:
        """Frame `+ACK`."""
        if not self._out:
            self._loop.call_soon(self._write)
        self._add(b"PUB %b 4\r\n+ACK\r\n" % reply)

    def answer(self, reply: bytes, verb: bytes) -> None:
        """Frame another answer."""
        if not self._out:
            self._loop.call_soon(self._write)
        self._add(b"PUB %b %d\r\n%b\r\n" % (reply, len(verb), verb))

    async def listen(self, subject: str, receive: Receive) -> Listener:
        """Subscribe by the public API, so that nats-py subscribes again after a reconnect, and claim the frames."""
        subscription = await self._client.subscribe(subject)
        sid = b"%d" % subscription._id
        self._parser.sinks[sid] = receive
        return _HotListener(self, self._client, subscription, sid)

    async def flush(self) -> None:
        """Write, then wait for the server."""
        self._write()
        await self._client.flush()

    @property
    def full(self) -> bool:
        """Tell whether too much waited at the last write, and still does."""
        if self._full:
            self._full = self._client._pending_data_size + self._buffered() > MAX_UNSENT
        return self._full

    def drop(self) -> None:
        """Forget all unsent frames: subscriptions are made again by nats-py, everything else is asked for again."""
        self._out.clear()
        self._full = False
        self._client._pending.clear()
        self._client._pending_data_size = 0
        self._parser.reset()

    def release(self, sid: bytes) -> None:
        """Give frames of a subscription back to nats-py."""
        self._parser.sinks.pop(sid, None)

    def _buffered(self) -> int:
        writer = self._client._transport._io_writer
        return 0 if writer is None else int(writer.transport.get_write_buffer_size())

    def _write(self) -> None:
        """Hand this turn's frames to the socket, or, while it is slow, to nats-py's flusher, which waits for it to drain."""
        if not self._out:
            return
        block = b"".join(self._out)
        self._out.clear()
        client = self._client
        if not client.is_connected:
            return
        buffered = self._buffered()
        if not client._pending and buffered <= HIGH_WATER:
            client._transport.write(block)
            return
        client._pending.append(block)
        client._pending_data_size += len(block)
        self._full = client._pending_data_size + buffered > MAX_UNSENT
        if client._flush_queue.empty():
            client._flush_queue.put_nowait(self._loop.create_future())


class _HotListener:
    def __init__(self, link: HotLink, client: Client, subscription: Subscription, sid: bytes) -> None:
        self._link = link
        self._client = client
        self._subscription: Subscription | None = subscription
        self._sid = sid

    async def close(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        try:
            if not self._client.is_closed:
                await subscription.unsubscribe()
                if self._client.is_connected:
                    await self._link.flush()  # nats-py writes its ping past what waits to be written,
                    await self._link.flush()  # so that only a second one comes behind the goodbye
        except (NatsError, OSError, RuntimeError, TimeoutError) as error:  # RuntimeError: uvloop's, on a handle that is closing
            logger.info("nats inbox not closed in order", extra={"reason": type(error).__name__})
        finally:
            self._link.release(self._sid)
