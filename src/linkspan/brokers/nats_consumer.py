"""One group's delivery from one stream by continuous pull.

Order through crashes: everything that is not settled when a subscription starts, or when its connection comes back, has to come
again in stream order before anything newer. JetStream alone redelivers after `ack_wait`, behind newer messages. So each start is a
new **generation**: a fresh inbox, then `CONSUMER.RESET` (ADR-60, server 2.14+), which moves the consumer back to its ack floor,
then the first pull. Tried on 2.15.1: the reset clears pending and redelivered; late acks of earlier deliveries are ignored until
their message was handed over again, and count as its ack from then on; pulls that wait **survive** the reset, which is why the old
inbox is closed first and we wait for the pulls of a connection that just died to disappear.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Protocol

import msgspec
from nats.errors import Error as NatsError

from linkspan.brokers.nats_admin import ACK_WAIT, consumer_of, lane_consumer, leader_of_consumer, stream_of
from linkspan.errors import Code, Error
from linkspan.ports import STILL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from linkspan.brokers.nats_admin import Admin
    from linkspan.brokers.nats_link import Link, Listener
    from linkspan.ports import Delivery, Runtime, Timer

__all__ = ["Channel", "Generation", "LaneSubscription", "NatsDelivery", "PullSubscription", "own_headers"]

logger = logging.getLogger("linkspan.nats")

EXPIRES = 60.0
"""Seconds that one pull request waits on the server."""

HEARTBEAT = 5.0
"""Seconds between the server's signs of life on an idle pull; after two missed ones the subscription starts again."""

LANE_EXPIRES = STILL / 2
"""The same for a lane: a process that stands still must not have a pull waiting when another takes its lanes."""

_MISSED = 2
_BACKOFF = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_OURS = b"NATS/1.0\r\nNats-Msg-Id: "
_V1_TOKENS = 9
_TERMS = b'"expires":%d,"idle_heartbeat":%d' % (int(EXPIRES * 1e9), int(HEARTBEAT * 1e9))
_LANE_TERMS = b'"expires":%d' % int(LANE_EXPIRES * 1e9)  # its end is sign of life enough
_UNFILLED = re.compile(rb"Nats-Pending-Messages: ([0-9]{1,9})\r\n")


class Channel(Protocol):
    """What a subscription needs of its broker."""

    runtime: Runtime

    @property
    def admin(self) -> Admin:
        """JetStream's API on the present connection."""
        ...

    @property
    def link(self) -> Link | None:
        """The link while the connection is up."""
        ...

    def inbox(self) -> str:
        """Return a new inbox subject."""
        ...

    async def heed(self, subject: str) -> None:
        """Start subscriptions again when this advisory says that another server leads them."""
        ...

    def forget(self, subscription: PullSubscription) -> None:
        """Restart it no more."""
        ...


class NatsDelivery(msgspec.Struct, eq=False, gc=False):
    """A message in hand. It holds nothing that could hold it, so the garbage collector need not look."""

    topic: str
    headers: bytes
    data: bytes
    generation: Generation
    reply: bytes
    unsettled: bool = True

    @property
    def attempt(self) -> int:
        """Count deliveries since the group last started: `$JS.ACK.[domain.account.]stream.consumer.count...`."""
        tokens = self.reply.split(b".")
        return int(tokens[4] if len(tokens) <= _V1_TOKENS else tokens[6])

    @property
    def place(self) -> str:
        """Name its place for ever: the sequence in its stream, and when it was stored (a stream made anew counts anew)."""
        tokens = self.reply.decode().split(".")
        sequence, _, stored = tokens[5:8] if len(tokens) <= _V1_TOKENS else tokens[7:10]
        return f"{sequence}-{stored}"

    @property
    def stored(self) -> float:
        """Return when the server stored it, seconds since 1970."""
        return int(self.place.partition("-")[2]) / 1e9

    def ack(self) -> None:
        """Settle it."""
        if self.unsettled:
            self.unsettled = False
            self.generation.ack(self.reply)

    def nack(self, delay: float = 0.0) -> None:
        """Give it back."""
        if self.unsettled:
            self.unsettled = False
            self.generation.nack(self.reply, delay)

    def beat(self) -> None:
        """Start the redelivery clock anew."""
        if self.unsettled:
            self.generation.beat(self.reply)


def own_headers(raw: bytes) -> bytes:
    """Return a message's own header lines: what our publisher put in front of the canonical block for the server is cut off."""
    end = raw.find(b"\r\n")
    start = end + 2
    while end >= 0 and raw.startswith(b"Nats-", start):
        end = raw.find(b"\r\n", start)
        start = end + 2
    return raw[start:-2] if end >= 0 else b""  # a foreign block need not have whole lines


class _NotYet:
    async def close(self) -> None:
        """Close nothing."""


_NOT_YET = _NotYet()


class Generation:
    """One start of a subscription: its inbox, its pulls and what it has in hand."""

    def __init__(self, subscription: PullSubscription, link: Link, inbox: str) -> None:
        self.topic = subscription.topic
        self.link = link
        self.inbox = inbox
        self.listener: Listener = _NOT_YET
        self.taking = True
        self.outstanding = 0
        self.unsettled = 0
        self.missed = 0
        self._subscription = subscription
        self._deliver = subscription.deliver
        self._reached = subscription.runtime.reached
        self._pulls = 0
        self.bound(subscription.prefetch)

    def bound(self, prefetch: int) -> None:
        """Hold so many at most."""
        self._prefetch = prefetch
        self._half = max(1, prefetch // 2)

    def receive(self, _subject: bytes, reply: bytes, raw: bytes, data: bytes) -> None:
        """Take a message, or a status of a pull."""
        self.missed = 0
        if not reply.startswith(b"$JS.ACK."):
            if self.taking:
                self._status(raw)
        elif not self.taking:
            self.link.answer(reply, b"-NAK")  # it crossed our goodbye: another instance may have it at once
        else:
            self.outstanding -= 1
            self.unsettled += 1
            headers = raw[raw.find(b"\r\n", 23) + 2 : -2] if raw.startswith(_OURS) else own_headers(raw)
            self._deliver(NatsDelivery(self.topic, headers, data, self, reply))

    def ack(self, reply: bytes) -> None:
        """Send an ack; a late one of an earlier generation too, it saves a duplicate."""
        self._reached("broker.ack.before")
        if self.taking:
            self.link.ack(reply)
        else:
            self._subscription.late_ack(reply)
        self._settled()
        self._reached("broker.ack.after")

    def nack(self, reply: bytes, delay: float) -> None:
        """Send a nack; messages of an earlier generation come again anyway."""
        self._reached("broker.nack.before")
        if self is self._subscription.current:
            self.link.answer(reply, b'-NAK {"delay": %d}' % int(delay * 1e9) if delay > 0.0 else b"-NAK")
        self._settled()
        self._reached("broker.nack.after")

    def beat(self, reply: bytes) -> None:
        """Say that the work goes on."""
        if self is self._subscription.current:
            self.link.answer(reply, b"+WPI")

    def _settled(self) -> None:
        self.unsettled -= 1
        if self.taking and self._prefetch - self.unsettled - self.outstanding >= self._half:
            self.pull()

    def fill(self) -> None:
        """Ask for more, where there is room for as many as it takes."""
        if self.taking and self._prefetch - self.unsettled - self.outstanding >= self._half:
            self.pull()

    def pull(self) -> None:
        """Ask for as many as there is room: in hand and asked for together never exceed the prefetch."""
        free = self._prefetch - self.unsettled - self.outstanding
        self._pulls += 1
        self.outstanding += free
        request = b'{"batch":%d,%b}' % (free, self._subscription.pull_terms)
        self.link.send(self._subscription.pull_subject, f"{self.inbox}.{self._pulls}".encode(), b"", request)

    def _status(self, raw: bytes) -> None:
        """Read a status line such as `NATS/1.0 408 Request Timeout` (ADR-13, ADR-37)."""
        code = raw[9:12]
        if code == b"100" or not raw.startswith(b"NATS/1.0 "):
            return
        unfilled = _UNFILLED.search(raw)
        if unfilled is None or code == b"503":
            self._subscription.restart(raw[9 : raw.find(b"\r\n")].decode("ascii", "replace"))
            return
        self.outstanding = max(0, self.outstanding - int(unfilled[1]))
        if self.outstanding == 0 or self._prefetch - self.unsettled - self.outstanding >= self._half:
            self.pull()


class PullSubscription:
    """A group's open delivery; starts again by itself after every reconnect and whenever the server falls silent."""

    def __init__(
        self, channel: Channel, topic: str, group: str, receive: Callable[[Delivery], None], prefetch: int, lane: int | None = None
    ) -> None:
        self.topic = topic
        self.group = group
        self.deliver = receive
        self.prefetch = prefetch
        self.patience = ACK_WAIT
        self.runtime = channel.runtime
        self.current: Generation | None = None
        self.consumer = consumer_of(group) if lane is None else lane_consumer(group, lane)
        self.pull_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream_of(topic)}.{self.consumer}".encode()
        self.pull_terms = _TERMS if lane is None else _LANE_TERMS
        self._channel = channel
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._stopped = False
        self._timer: Timer | None = None

    async def start(self) -> None:
        """Begin the first generation. Raises `Error` when the server cannot."""
        await self._begin()
        self._timer = self.runtime.clock.call_later(HEARTBEAT, self._check)

    def bound(self, prefetch: int) -> None:
        """Hold so many at most; what was asked for on the server cannot be taken back."""
        self.prefetch = prefetch
        if self.current is not None:
            self.current.bound(prefetch)
            self.current.fill()

    def follow(self) -> None:
        """Begin a new generation at the server that leads from now on; what the last one was asked for gets no answer."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.restart("another server leads it")

    def restart(self, reason: str) -> None:
        """Begin a new generation as soon as the server can."""
        if self._stopped:
            return
        logger.info("nats subscription starts again", extra={"topic": self.topic, "group": self.group, "reason": reason})
        self.suspend()
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._restart(), name="linkspan nats restart")

    def suspend(self) -> None:
        """Take nothing and ask for nothing until `restart`: the connection is lost, and newer messages must not pass older ones."""
        if self.current is not None:
            self.current.taking = False

    async def stop(self) -> None:
        """Take no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self.suspend()
        if self.current is not None:
            await self.current.listener.close()
        self._channel.forget(self)

    def late_ack(self, reply: bytes) -> None:
        """Send an ack on whatever connection there is."""
        link = self._channel.link
        if link is not None:
            link.ack(reply)

    async def _restart(self) -> None:
        tries = 0
        while self._again and not self._stopped:
            self._again = False
            try:
                await self._begin()
                tries = 0
            except Exception as error:  # noqa: BLE001 - a group must not stay silent, whatever a dying connection raises
                self._again = True
                reason = error.message if isinstance(error, Error) else type(error).__name__
                extra = {"topic": self.topic, "group": self.group, "reason": reason}
                logger.warning("nats subscription cannot start yet", extra=extra)
                await self.runtime.clock.sleep(_BACKOFF[min(tries, len(_BACKOFF) - 1)])
                tries += 1
        self._task = None

    async def _begin(self) -> None:
        self.suspend()
        if self.current is not None:
            await self.current.listener.close()
        link = self._channel.link
        if link is None:
            raise Error(Code.UNAVAILABLE, "The NATS server is not connected: the subscription starts when it is back.")
        generation = Generation(self, link, self._channel.inbox())
        try:
            generation.listener = await link.listen(f"{generation.inbox}.*", generation.receive)
            if await self._channel.admin.reset(stream_of(self.topic), self.consumer):
                await self._channel.heed(leader_of_consumer(self.topic))
        except NatsError as error:
            await generation.listener.close()
            text = f"The connection was lost while group '{self.group}' started ({type(error).__name__}): subscribe again."
            raise Error(Code.UNAVAILABLE, text) from error
        except BaseException:
            await generation.listener.close()
            raise
        if self._stopped:
            await generation.listener.close()
            return
        self.patience = self._channel.admin.waits.get((stream_of(self.topic), self.consumer), self.patience)
        generation.bound(self.prefetch)
        self.current = generation
        generation.pull()

    def _check(self) -> None:
        """Start again when two signs of life are missing although pulls wait."""
        self._timer = self.runtime.clock.call_later(HEARTBEAT, self._check)
        current = self.current
        if current is not None and current.taking and current.outstanding > 0 and self._channel.link is not None:
            current.missed += 1
            if current.missed > _MISSED:
                self.restart("no sign of life from the server")


class LaneSubscription:
    """The open deliveries of several lanes of a group, as one."""

    def __init__(self, parts: Sequence[PullSubscription]) -> None:
        self._parts = parts

    @property
    def patience(self) -> float:
        """Return the shortest time until redelivery."""
        return min((part.patience for part in self._parts), default=ACK_WAIT)

    def bound(self, prefetch: int) -> None:
        """Hold so many of each lane at most."""
        for part in self._parts:
            part.bound(prefetch)

    async def stop(self) -> None:
        """Take no more from any of them."""
        for part in self._parts:
            part.suspend()
        await asyncio.gather(*(part.stop() for part in self._parts))
