"""How bytes get on and off a NATS connection: the one seam between the hot path and nats-py's public API.

Everything above it (publishing, pulling, acknowledging) is written once, so both have the same semantics.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from nats.errors import Error as NatsError

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

__all__ = ["Link", "Listener", "PublicLink", "Receive", "shut"]

logger = logging.getLogger("linkspan.nats")

MAX_UNSENT = 64 << 20
"""Bytes that may wait for the socket; beyond them publishes fail at once."""

Receive: TypeAlias = Callable[[bytes, bytes, bytes, bytes], None]
"""Called with subject, reply (empty where absent), raw headers from `NATS/1.0` to the blank line (empty where absent), data."""


class Listener(Protocol):
    """An open inbox."""

    async def close(self) -> None:
        """Stop; what the server sent before it knew is still received. Idempotent."""
        ...


class Link(Protocol):
    """Send and receive on one nats-py connection. Order of `send` is order on the wire."""

    def send(self, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        """Queue a message; `headers` are lines without the version line, empty for none. Never blocks."""
        ...

    def ack(self, reply: bytes) -> None:
        """Queue `+ACK` to a delivery's reply subject."""
        ...

    def answer(self, reply: bytes, verb: bytes) -> None:
        """Queue another answer to a delivery."""
        ...

    async def listen(self, subject: str, receive: Receive) -> Listener:
        """Receive what is sent to a subject, across nats-py's reconnects. `receive` runs on the loop and must not raise."""
        ...

    async def flush(self) -> None:
        """Return when the server has read everything sent so far. Raises nats-py's errors."""
        ...

    @property
    def full(self) -> bool:
        """Tell whether so much waits for the socket that no more should be sent (`MAX_UNSENT`)."""
        ...

    def drop(self) -> None:
        """Forget what was not written: the connection was lost, and nobody waits for it any more."""
        ...


class PublicLink:
    """The public API of nats-py: the slow way that always works."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._untyped: Any = client
        self._queue: deque[tuple[bytes, bytes, bytes, bytes]] = deque()
        self._size = 0
        self._sender: asyncio.Task[None] | None = None

    def send(self, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        """Queue for the one task that sends, so that order holds."""
        self._queue.append((subject, reply, headers, data))
        self._size += len(headers) + len(data)
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send(), name="linkspan nats send")

    def ack(self, reply: bytes) -> None:
        """Queue an acknowledgement."""
        self.send(reply, b"", b"", b"+ACK")

    def answer(self, reply: bytes, verb: bytes) -> None:
        """Queue another answer."""
        self.send(reply, b"", b"", verb)

    async def listen(self, subject: str, receive: Receive) -> Listener:
        """Subscribe without limits: a limit of nats-py drops messages, and pulls are bounded already."""

        async def hand_over(message: Msg) -> None:
            receive(message.subject.encode(), message.reply.encode(), _raw(message.headers), message.data)

        return _PublicListener(
            self._client, await self._untyped.subscribe(subject, cb=hand_over, pending_msgs_limit=0, pending_bytes_limit=0)
        )

    async def flush(self) -> None:
        """Wait for the sending task, then for the server."""
        while self._sender is not None:
            await asyncio.wait([self._sender])
        await self._client.flush()

    @property
    def full(self) -> bool:
        """Count what waits here and in nats-py."""
        return self._size + self._client.pending_data_size > MAX_UNSENT

    def drop(self) -> None:
        """Forget the queue; what nats-py holds already goes out after its reconnect."""
        self._queue.clear()
        self._size = 0

    async def _send(self) -> None:
        try:
            while self._queue:
                if not self._client.is_connected:
                    self.drop()  # nats-py would keep it and send it late, past what was lost before it
                    break
                subject, reply, headers, data = self._queue.popleft()
                self._size -= len(headers) + len(data)
                fields = _fields(headers) if headers else None
                await self._client.publish(subject.decode(), data, reply=reply.decode(), headers=fields)
        except NatsError as error:
            logger.warning("nats message not sent", extra={"reason": type(error).__name__})
        finally:
            self._sender = None
            if self._queue:
                self._sender = asyncio.get_running_loop().create_task(self._send(), name="linkspan nats send")


class _PublicListener:
    def __init__(self, client: Client, subscription: Subscription) -> None:
        self._client = client
        self._subscription: Subscription | None = subscription

    async def close(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is None or self._client.is_closed:
            return
        try:
            if self._client.is_connected:
                await cast("Any", subscription).drain()  # nats-py left it untyped
            else:
                await subscription.unsubscribe()
        except (NatsError, TimeoutError) as error:
            logger.info("nats inbox not closed in order", extra={"reason": type(error).__name__})


def _fields(block: bytes) -> dict[str, str]:
    """Return header lines as nats-py takes them."""
    fields: dict[str, str] = {}
    for line in block.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            fields[name] = value
    return fields


def _raw(fields: dict[str, str] | None) -> bytes:
    """Return what nats-py made of a message's headers as they stood on the wire."""
    if not fields:
        return b""
    status = fields.get("Status", "")
    lines = [f"NATS/1.0 {status} {fields.get('Description', '')}\r\n" if status else "NATS/1.0\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in fields.items() if not status or name not in {"Status", "Description"}]
    return ("".join(lines) + "\r\n").encode("utf-8", "replace")


async def shut(client: Client) -> None:
    """Close a client whatever state its socket is in."""
    try:
        await client.close()
    except (NatsError, OSError, RuntimeError) as error:  # uvloop: RuntimeError for a handle that is gone
        logger.info("nats connection not closed in order", extra={"reason": type(error).__name__})
