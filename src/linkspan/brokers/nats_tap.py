"""Watch a stream from beside: an ephemeral consumer that acknowledges nothing, shares nothing with any group, and keeps the stream's order.

The server counts what it sends; a hole in that count, or its silence, makes a new consumer right behind what was seen last (the ordered
consumer of ADR-17). Nothing is stored, and the server forgets the consumer seconds after we are gone.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from linkspan.brokers.nats_admin import stream_of
from linkspan.brokers.nats_consumer import own_headers
from linkspan.errors import Code, Error
from linkspan.ports import Seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from linkspan.brokers.nats_consumer import Channel
    from linkspan.brokers.nats_link import Listener

__all__ = ["NatsTap"]

logger = logging.getLogger("linkspan.nats")

HEARTBEAT = 2.0
"""Seconds between the server's signs of life."""
SILENCE = 3 * HEARTBEAT
"""Seconds without any after which the consumer is made anew."""
FORGOTTEN = 30
"""Seconds after which the server removes the consumer of a tap that is gone."""
_V1_TOKENS = 9


class NatsTap:
    """Hands every message of its topics to `receive`, in the order of each topic."""

    def __init__(self, channel: Channel, receive: Callable[[Seen], None]) -> None:
        self._channel = channel
        self._receive = receive
        self._topics: list[_Watched] = []

    async def add(self, topic: str, *, since: float | None = None) -> int:
        """Watch a topic from a moment on (seconds since 1970, 0 for all that is kept), or from now; return how many are to come first.

        Raises `Error(NOT_FOUND)` where the topic is not there yet.
        """
        watched = _Watched(self._channel, topic, self._receive)
        pending = await watched.start({"deliver_policy": "new"} if since is None else _from(since))
        self._topics.append(watched)
        return pending

    async def aclose(self) -> None:
        """Stop watching."""
        topics, self._topics = self._topics, []
        for watched in topics:
            await watched.aclose()


def _from(since: float) -> dict[str, Any]:
    if since <= 0:
        return {"deliver_policy": "all"}
    return {"deliver_policy": "by_start_time", "opt_start_time": datetime.fromtimestamp(since, UTC).isoformat().replace("+00:00", "Z")}


class _Watched:
    """One topic, through as many consumers as it takes."""

    def __init__(self, channel: Channel, topic: str, receive: Callable[[Seen], None]) -> None:
        self._channel = channel
        self._topic = topic
        self._receive = receive
        self._listener: Listener | None = None
        self._last = 0
        self._count = 0
        self._heard = 0.0
        self._again: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self, policy: dict[str, Any]) -> int:
        """Make the consumer and return how many messages it has for us."""
        pending = await self._make(policy)
        self._keeper = asyncio.get_running_loop().create_task(self._keep())
        return pending

    async def _make(self, policy: dict[str, Any]) -> int:
        link = self._channel.link
        if link is None:
            raise Error(Code.UNAVAILABLE, "The NATS server is not connected: watch again when it is back.")
        if self._listener is not None:
            await self._listener.close()
        inbox, self._count = self._channel.inbox(), 0
        self._listener = await link.listen(inbox, self._take)
        stream = stream_of(self._topic)
        config = {
            "deliver_subject": inbox,
            "ack_policy": "none",
            "max_deliver": 1,
            "mem_storage": True,
            "num_replicas": 1,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT * 1e9),
            "inactive_threshold": FORGOTTEN * 1_000_000_000,
            **policy,
        }
        made = await self._channel.admin.request(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
        self._heard = self._channel.runtime.clock.monotonic()
        return int(made.get("num_pending", 0)) + int(made.get("delivered", {}).get("consumer_seq", 0))

    def _take(self, _subject: bytes, reply: bytes, raw: bytes, data: bytes) -> None:
        self._heard = self._channel.runtime.clock.monotonic()
        tokens = reply.split(b".")
        if not reply.startswith(b"$JS.ACK."):
            if raw.startswith(b"NATS/1.0 100") and reply and self._channel.link is not None:
                self._channel.link.answer(reply, b"")  # flow control: we have read so far
            return
        shift = 0 if len(tokens) <= _V1_TOKENS else 2
        sequence, count, at, pending = (int(token) for token in tokens[5 + shift : 9 + shift])
        self._count += 1
        if count != self._count:
            self._restart("a message is missing")
            return
        self._last = sequence
        self._receive(Seen(self._topic, sequence, at / 1e9, own_headers(raw), data, pending))

    def _restart(self, reason: str) -> None:
        if self._again is None or self._again.done():
            logger.info("nats tap starts again", extra={"topic": self._topic, "reason": reason})
            self._again = asyncio.get_running_loop().create_task(self._remake())

    async def _remake(self) -> None:
        try:
            await self._make(
                {"deliver_policy": "by_start_sequence", "opt_start_seq": self._last + 1} if self._last else {"deliver_policy": "new"}
            )
        except Error as error:
            logger.info("nats tap cannot start yet", extra={"topic": self._topic, "code": error.code.value})

    async def _keep(self) -> None:
        clock = self._channel.runtime.clock
        while True:
            await clock.sleep(HEARTBEAT)
            if clock.monotonic() - self._heard > SILENCE:
                self._restart("no sign of life from the server")

    async def aclose(self) -> None:
        """Stop."""
        for task in (self._keeper, self._again):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._listener is not None:
            await self._listener.close()
