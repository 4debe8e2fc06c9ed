"""NATS JetStream as a broker: one stream per topic, one durable pull consumer per group.

nats-py keeps the connection (TLS, credentials, ping, reconnect); sending and receiving go over a `Link`: the hot path where it
fits, nats-py's public API otherwise. See `nats_consumer` for how order survives crashes.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from typing import TYPE_CHECKING, Any

from nats.aio.client import Client
from nats.errors import Error as NatsError

from linkspan.brokers import nats_hotpath
from linkspan.brokers.nats_admin import Admin, leader_of_consumer, leader_of_stream
from linkspan.brokers.nats_answers import refusal
from linkspan.brokers.nats_attest import attest, check_server
from linkspan.brokers.nats_consumer import LaneSubscription, PullSubscription
from linkspan.brokers.nats_link import PublicLink, shut
from linkspan.brokers.nats_tap import NatsTap
from linkspan.envelope import LANES, encode_value
from linkspan.errors import Code, Error, SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from linkspan.brokers.nats_link import Link
    from linkspan.ports import Delivery, Drift, Durability, Outgoing, Runtime, Seen, Subscription, Tap, Timer

__all__ = ["NatsBroker"]

logger = logging.getLogger("linkspan.nats")

PUBLISH_TIMEOUT = 5.0
"""Seconds until a publish that was not confirmed fails with UNAVAILABLE."""

MIN_BATCH, MAX_BATCH = 2, 1000
_NOBODY: tuple[asyncio.Future[None] | None, str] = (None, "")
_FRAME = len(b"NATS/1.0\r\n\r\n")
STUCK = 30.0
"""Seconds after which a client that did not come back is replaced."""
_CLOSE_LIMIT = 2.0
_SWEEP = 0.5
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_OURS = {"ack_wait", "replicas", "publish_timeout", "sync_interval", "monitoring", "any_server_version"}
_AUTHORIZATION = "authorization"
_DENIED = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)
# A server that refuses a login closes at once, and the reset can overtake its reason: more than one try to hear it.
FIRST_ATTEMPTS = 3


class NatsBroker:
    """A broker on NATS JetStream, server 2.15 or newer: one server, or several addresses of one cluster.

    `options` go to nats-py's `connect` (TLS, `user_credentials`, `nkeys_seed`, ...) except for our own: `replicas` of new streams
    (default: 3 in a cluster, else 1), `publish_timeout` in seconds, `ack_wait` in seconds (on a server of ours: existing consumers
    get it), `sync_interval` ("always" where the server's configuration is ours, for `attest`), `monitoring` (its HTTP address, for
    `attest`), `any_server_version` (accept one older than 2.15).
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        runtime: Runtime,
        user: str = "",
        password: str = "",
        options: Mapping[str, Any] | None = None,
        hot_path: bool = True,
    ) -> None:
        given = dict(options or {})
        self.runtime = runtime
        self.settings: dict[str, Any] = {name: given.pop(name) for name in _OURS if name in given}
        self._connect: dict[str, Any] = {
            "servers": url if isinstance(url, str) else list(url),
            "name": "linkspan",
            "reconnect_time_wait": 0.1,
            "connect_timeout": 2,
            "ping_interval": 20,
            "max_outstanding_pings": 2,
            **({"user": user, "password": password} if user else {}),
            **given,
        }
        self._hot_path = hot_path
        self._link: Link | None = None
        self._wire: Link | None = None
        self._client: Client | None = None
        self._admin: Admin | None = None
        self._subscriptions: list[PullSubscription] = []
        self._topics: set[str] = set()
        self._declared: set[tuple[str, str]] = set()  # topic and group, empty for the topic alone
        self._heeded: set[str] = set()  # advisories that are listened to
        self._subjects: dict[tuple[str, str, int], bytes] = {}
        self._revival: asyncio.Task[None] | None = None
        self._last_error = ""
        self._refused = False  # the server refused our login
        # publishes on their way, by the token of their reply subject; tokens count up, so the oldest are in front
        self._pending: dict[int, tuple[asyncio.Future[None], str]] = {}
        self._token = 0
        self._inbox = b""
        self._max_payload = 1 << 62  # unknown until connected
        self._marks: deque[tuple[float, int]] = deque()
        self._sweeper: Timer | None = None
        self._timeout = float(self.settings.get("publish_timeout", PUBLISH_TIMEOUT))

    # --- connection ---------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Tell whether the connection is up."""
        return self._link is not None

    @property
    def link(self) -> Link | None:
        """The link while the connection is up."""
        return self._link

    @property
    def admin(self) -> Admin:
        """JetStream's API on the present connection."""
        if self._admin is None:
            raise Error(Code.UNAVAILABLE, "The NATS broker is not open: open it first.")
        return self._admin

    def inbox(self) -> str:
        """Return a new inbox subject."""
        if self._client is None:
            raise Error(Code.UNAVAILABLE, "The NATS broker is not open: open it first.")
        return self._client.new_inbox()

    async def open(self) -> None:
        """Connect. Raises `Error(UNAVAILABLE)`, or `SetupError` for wrong credentials or an unfit server."""
        if self._client is not None:
            return
        await self._dial()

    async def _dial(self) -> None:
        """Make a connection and a link on it."""
        client = Client()
        self._refused = False

        async def disconnected() -> None:
            self._on_disconnected(client)

        async def reconnected() -> None:
            self._on_reconnected(client)

        async def closed() -> None:
            self._on_closed(client)

        try:
            await client.connect(
                **self._connect,
                max_reconnect_attempts=FIRST_ATTEMPTS,  # for the first connection; then without end
                error_cb=self._on_error,
                disconnected_cb=disconnected,
                reconnected_cb=reconnected,
                closed_cb=closed,
            )
        except asyncio.CancelledError:
            await shut(client)
            raise
        except TypeError as error:
            raise SetupError(f"The NATS options are not understood ({error}): give what nats-py's connect takes.") from error
        except (NatsError, OSError, TimeoutError) as error:
            if self._refused or _AUTHORIZATION in str(error).lower():
                raise SetupError("The NATS server refused the login: check user, password or credentials.") from error
            text = f"The NATS server does not answer ({type(error).__name__}): start it, or check its address."
            raise Error(Code.UNAVAILABLE, text) from error
        client.options["max_reconnect_attempts"] = -1
        try:
            check_server(client, self.settings)
            link = self._make_link(client)
            inbox = client.new_inbox()
            await link.listen(f"{inbox}.*", self._on_puback)
            for subject in self._heeded:
                await link.listen(subject, self._on_leader)
            await client.flush()
        except BaseException:
            await shut(client)
            raise
        self._inbox = inbox.encode() + b"."
        self._max_payload = client.max_payload
        self._admin = Admin(
            client, self.runtime.clock, replicas=int(self.settings.get("replicas", 0)), ack_wait=self.settings.get("ack_wait")
        )
        self._client, self._wire = client, link
        self._link = link if client.is_connected else None

    def _make_link(self, client: Client) -> Link:
        if not self._hot_path:
            return PublicLink(client)
        reason = nats_hotpath.check(client)
        if reason is None:
            return nats_hotpath.HotLink(client)
        logger.warning("nats hot path is off, the public API of nats-py is used", extra={"reason": reason})
        return PublicLink(client)

    async def aclose(self) -> None:
        """Flush acks, close, fail what is in flight."""
        client, self._client = self._client, None
        if client is None:
            return
        if self._revival is not None:
            self._revival.cancel()
        link = self._link
        try:
            async with asyncio.timeout(_CLOSE_LIMIT):
                for subscription in list(self._subscriptions):
                    await subscription.stop()
                if link is not None:
                    await link.flush()
        except (NatsError, OSError, TimeoutError):
            logger.info("nats connection closed without a last flush")
        self._link = None
        self._subscriptions.clear()
        self.admin.close()
        self._fail("The broker was closed: open it again, then send the message again with the same id.")
        await shut(client)

    async def _on_error(self, error: Exception) -> None:
        reason = str(error) or type(error).__name__
        self._refused = self._refused or _AUTHORIZATION in reason.lower()
        denied = _DENIED.search(reason)
        if denied is not None and self._admin is not None:
            self._admin.on_denied(denied[1])
        if reason != self._last_error:  # nats-py repeats itself ten times a second while it reconnects
            logger.info("nats connection reported an error", extra={"reason": reason})
        self._last_error = reason

    def _on_disconnected(self, client: Client) -> None:
        if client is not self._client:
            return
        for subscription in self._subscriptions:
            subscription.suspend()
        if self._link is not None:
            self._link.drop()
            self._link = None
            self.runtime.clock.call_later(STUCK, self._give_up, client)
        self._fail("The connection to NATS was lost: send the message again with the same id.")

    def _give_up(self, client: Client) -> None:
        """Replace a client that has not come back for long: its reconnecting may have died."""
        if client is self._client and self._link is None and not client.is_closed:
            self._revival = asyncio.get_running_loop().create_task(self._replace(client), name="linkspan nats give up")

    async def _replace(self, client: Client) -> None:
        await shut(client)
        if client is self._client and self._link is None:
            await self._revive()

    def _on_reconnected(self, client: Client) -> None:
        if client is self._client:
            self._max_payload = client.max_payload
            self._link = self._wire
            self._restore()

    def _on_closed(self, client: Client) -> None:
        """Dial again: nats-py gives up for good after some server errors."""
        if client is not self._client:
            return
        self._link = None
        if self._revival is not None and not self._revival.done():
            return
        logger.error("nats connection was closed by nats-py; connecting again", extra={"reason": self._last_error})
        self._revival = asyncio.get_running_loop().create_task(self._revive(), name="linkspan nats revive")

    async def _revive(self) -> None:
        wait = 0.1
        while self._link is None:
            try:
                await self._dial()
            except (Error, SetupError) as error:
                logger.warning("nats connection not made", extra={"reason": str(error)})
                await self.runtime.clock.sleep(wait)
                wait = min(5.0, wait * 2)
        self._restore()

    def _restore(self) -> None:
        for subscription in self._subscriptions:
            subscription.restart("the connection is back")

    # --- leaders of a cluster -----------------------------------------------------------------------

    async def heed(self, subject: str) -> None:
        """Listen for an advisory that another server leads a stream or a consumer; what it was asked before may be lost."""
        link = self._link
        if subject not in self._heeded and link is not None:
            self._heeded.add(subject)
            await link.listen(subject, self._on_leader)

    def _on_leader(self, subject: bytes, _reply: bytes, _raw: bytes, _data: bytes) -> None:
        """Ask the new leader: publishes fail at once instead of by time-out, subscriptions start again."""
        advisory = subject.decode()
        for topic in {topic for _, topic in self._pending.values()}:
            if advisory == leader_of_stream(topic):
                self._doubt(topic)
        for subscription in list(self._subscriptions):
            if advisory == leader_of_consumer(subscription.topic, subscription.consumer):
                subscription.follow()

    def _doubt(self, topic: str) -> None:
        """Fail the publishes to a topic whose leader changed: the old one may have taken them with it."""
        for token in [token for token, (_, asked) in self._pending.items() if asked == topic]:
            future, _ = self._pending.pop(token)
            if not future.done():
                text = f"Another server leads topic '{topic}' now: send the message again with the same id."
                future.set_exception(Error(Code.UNAVAILABLE, text))

    def forget(self, subscription: PullSubscription) -> None:
        """Restart a subscription no more."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    # --- topics -------------------------------------------------------------------------------------

    async def declare(self, topics: Iterable[str], groups: Iterable[tuple[str, str]], *, lanes: bool = False) -> list[Drift]:
        """Create missing streams and consumers, with `lanes` one per lane; report those that differ."""
        admin, drifts = self.admin, list[Any]()
        for topic in topics:
            drifts += await admin.declare_stream(topic)
            self._topics.add(topic)
            self._declared.add((topic, ""))
            if admin.clustered:
                await self.heed(leader_of_stream(topic))
        for topic, group in groups:
            drifts += await (admin.declare_lanes(topic, group, range(LANES)) if lanes else admin.declare_consumer(topic, group))
            self._topics.add(topic)
            self._declared.add((topic, group))
        return drifts

    async def declare_foreign(self, subject: str, topic: str, group: str, *, given: bool) -> list[Drift]:
        """Make a group that reads one subject of somebody else's: on the stream `topic` that is there (`given`), or on a new one."""
        return await self.admin.declare_foreign(subject, topic, group, given=given)

    async def compare(self, topics: Iterable[str], groups: Iterable[tuple[str, str]], *, lanes: bool = False) -> list[Drift]:
        """Return what is missing or has other settings than declared; change nothing."""
        admin, drifts = self.admin, list[Any]()
        for topic in topics:
            drifts += await admin.declare_stream(topic, create=False)
        for topic, group in groups:
            part = admin.declare_lanes(topic, group, range(LANES), create=False) if lanes else None
            drifts += await (part or admin.declare_consumer(topic, group, create=False))
        return drifts

    async def subscribe(
        self, topic: str, group: str, receive: Callable[[Delivery], None], *, prefetch: int, lanes: Collection[int] | None = None
    ) -> Subscription:
        """Deliver from the group's place, or from the places of some of its lanes."""
        if prefetch < 1:
            raise SetupError(f"A subscription to '{topic}' cannot prefetch {prefetch}: use 1 or more.")
        if lanes is None:
            return await self._started(PullSubscription(self, topic, group, receive, prefetch))
        parts = [PullSubscription(self, topic, group, receive, prefetch, lane) for lane in lanes]
        try:
            await asyncio.gather(*map(self._started, parts))
        except BaseException:
            await LaneSubscription(parts).stop()
            raise
        return LaneSubscription(parts)

    async def _started(self, subscription: PullSubscription) -> PullSubscription:
        await subscription.start()
        self._topics.add(subscription.topic)
        self._subscriptions.append(subscription)
        return subscription

    def tap(self, receive: Callable[[Seen], None]) -> Tap:
        """Watch topics from beside, disturbing no group."""
        return NatsTap(self, receive)

    async def attest(self, topics: Iterable[str] = (), groups: Iterable[tuple[str, str]] = ()) -> Durability:
        """Read what the server tells about itself, its streams and its consumers."""
        if self._client is None:
            raise Error(Code.UNAVAILABLE, "The NATS broker is not open: open it first.")
        asked = {*self._declared, *groups}
        return await attest(self._client, self.admin, sorted({topic for topic, _ in asked} | {*topics}), asked, self.settings)

    # --- publish ------------------------------------------------------------------------------------

    def publish(self, message: Outgoing) -> asyncio.Future[None]:
        """Send one message."""
        self.runtime.reached("broker.publish.before")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._send(message, self._headers(message, b""), future)
        except Error as error:
            future.set_exception(error)
        return future

    async def publish_batch(self, messages: Sequence[Outgoing]) -> None:
        """Store all or none: an atomic batch (ADR-50), committed by its last message."""
        self.runtime.reached("broker.batch.before")
        if not MIN_BATCH <= len(messages) <= MAX_BATCH or len({message.topic for message in messages}) != 1:
            raise Error(Code.INVALID_ARGUMENT, f"A batch has {len(messages)} messages: send {MIN_BATCH} to {MAX_BATCH} of one topic.")
        batch = self.runtime.ids.new()
        blocks = [
            self._headers(message, b"Nats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n" % (batch.encode(), number))
            for number, message in enumerate(messages, 1)
        ]
        last = len(messages) - 1
        link = self._up()
        for message, block in zip(messages[:last], blocks[:last], strict=True):
            link.send(self._subject(message), b"", block, message.data)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._send(messages[last], b"Nats-Batch-Commit: 1\r\n" + blocks[last], future)
        try:
            await future
        except Error as error:
            if error.code is Code.NOT_FOUND:
                raise
            raise Error(Code.ABORTED, f"The batch was not confirmed, send its messages singly: {error.message}") from error
        self.runtime.reached("broker.batch.after")

    def _up(self) -> Link:
        link = self._link
        if link is None:
            raise Error(Code.UNAVAILABLE, "The NATS server is not connected: send it again when it is back, with the same id.")
        if link.full:
            raise Error(Code.UNAVAILABLE, "Too much waits for the NATS server: send it again later, with the same id.")
        return link

    def _send(self, message: Outgoing, headers: bytes, future: asyncio.Future[None]) -> None:
        link = self._up()
        subject = self._subject(message)
        self._token = token = self._token + 1
        self._pending[token] = (future, message.topic)
        link.send(subject, self._inbox + b"%d" % token, headers, message.data)
        if self._sweeper is None:
            self._sweep()

    def _headers(self, message: Outgoing, extra: bytes) -> bytes:
        """Put the dedupe id in front of the canonical block and the sequence behind it. Raises `Error` when it is too large."""
        id_ = message.id
        if not (id_.isascii() and id_.isprintable()):
            id_ = encode_value(id_)
        if message.sequence:
            headers = b"%bNats-Msg-Id: %b\r\n%bce-sequence: %d\r\n" % (extra, id_.encode(), message.headers, message.sequence)
        else:
            headers = b"%bNats-Msg-Id: %b\r\n%b" % (extra, id_.encode(), message.headers)
        size = len(headers) + len(message.data) + _FRAME
        if size > self._max_payload:
            text = f"A message of {size} bytes is too large for the NATS server: at most {self._max_payload} are accepted."
            raise Error(Code.INVALID_ARGUMENT, text)
        return headers

    def _subject(self, message: Outgoing) -> bytes:
        key = (message.topic, message.name, message.lane)
        subject = self._subjects.get(key)
        if subject is None:
            if not _NAME.fullmatch(message.topic) or not _NAME.fullmatch(message.name):
                text = (
                    f"The message '{message.name}' of '{message.topic}' cannot be a NATS subject: use letters, digits, '_', '-' and dots."
                )
                raise Error(Code.INVALID_ARGUMENT, text)
            subject = self._subjects[key] = f"{message.topic}.{message.lane}.{message.name}".encode()
        return subject

    def _on_puback(self, subject: bytes, _reply: bytes, raw: bytes, data: bytes) -> None:
        token = subject[len(self._inbox) :]
        future, topic = self._pending.pop(int(token), _NOBODY) if token.isdigit() else _NOBODY
        if future is None or future.done():
            return
        if data.startswith(b'{"stream":'):
            if topic not in self._topics:
                self._topics.add(topic)
            self.runtime.reached("broker.publish.after")
            future.set_result(None)
        else:
            future.set_exception(refusal(topic, raw, data, known=topic in self._topics))

    def _fail(self, text: str) -> None:
        pending, self._pending = self._pending, {}
        for future, _ in pending.values():
            if not future.done():
                future.set_exception(Error(Code.UNAVAILABLE, text))

    def _sweep(self) -> None:
        """Fail what waits too long: one timer for all publishes, which need no clock of their own."""
        self._sweeper = None
        now = self.runtime.clock.monotonic()
        while self._marks and self._marks[0][0] <= now - self._timeout:
            _, oldest = self._marks.popleft()
            for token in [token for token in self._pending if token <= oldest]:
                future, topic = self._pending.pop(token)
                if not future.done():
                    text = f"Topic '{topic}' was not confirmed within {self._timeout:g} s: send the message again with the same id."
                    future.set_exception(Error(Code.UNAVAILABLE, text))
        if self._pending:
            self._marks.append((now, self._token))
            self._sweeper = self.runtime.clock.call_later(min(_SWEEP, self._timeout / 4), self._sweep)
        else:
            self._marks.clear()
