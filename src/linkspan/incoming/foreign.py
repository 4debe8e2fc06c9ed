"""What programs that know nothing of Linkspan publish on a subject: plain JSON or MessagePack, read as events of a contract.

Each message is given the attributes that it lacks: an id from its place in the stream, the order key from its content. Its body stays as
it came, and from there on it is a message like any other: inbox, order per key, retries, dead letters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from linkspan.content import decode_content
from linkspan.envelope import JSON, MAX_HEADERS, MAX_KEY, Envelope, headers_of, prefix, render, timestamp
from linkspan.errors import Error, SetupError
from linkspan.message import key_of, type_name
from linkspan.ports import HandedOn
from linkspan.structured import media_type
from linkspan.trace import is_traceparent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from linkspan.ports import Broker, Delivery, Drift, Subscription

__all__ = ["ForeignDelivery", "ForeignReader", "ForeignSource", "foreign_source"]

MSGPACK: Final = "application/msgpack"
_SUBJECT: Final = re.compile(r"[A-Za-z0-9_*-]+(\.[A-Za-z0-9_*-]+)*(\.>)?")
_STREAM: Final = re.compile("[A-Za-z0-9_-]*")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]+/[a-z0-9.+-]+")
_UNTOLD: Final = frozenset({"", "application/octet-stream"})
_CORRELATION: Final = ("correlation_id", "correlation-id", "x-correlation-id", "correlationid")
_MAX_CORRELATION: Final = 128


@dataclass(frozen=True, slots=True)
class ForeignSource:
    """A subject of somebody else's, and the event class that its messages are read as; `stream` keeps them, where it is known."""

    subject: str
    event: type[Any]
    stream: str = ""

    @property
    def topic(self) -> str:
        """Return the stream that is read: the given one, or one that is made for the subject."""
        return self.stream or f"foreign-{self._plain}"

    def group(self, service: str) -> str:
        """Return the name of a service's consumer: each subject has one of its own."""
        return f"{service}-{self._plain}"

    @property
    def _plain(self) -> str:
        return self.subject.replace(".", "-").replace("*", "any").replace(">", "rest")


def foreign_source(service: str, subject: str, event: type[Any], stream: str) -> ForeignSource:
    """Check what `Service.reads` was given. Raises `SetupError`."""
    if not _SUBJECT.fullmatch(subject):
        raise SetupError(f"Service '{service}' cannot read '{subject}': write a NATS subject, such as 'orders.placed' or 'orders.*'.")
    if not _STREAM.fullmatch(stream):
        raise SetupError(f"Service '{service}' cannot read the stream '{stream}': write its name, of letters, digits, '_' and '-'.")
    return ForeignSource(subject, event, stream)


class _Placed(Protocol):
    """A delivery that knows its place: `place` names it in its stream for ever, `stored` is when it came there, seconds since 1970."""

    place: str
    stored: float


class ForeignDelivery(HandedOn, eq=False):
    """A foreign message with the headers that it should have had."""


class ForeignReader:
    """Stands between a broker and the consumer of one foreign source."""

    def __init__(self, source: ForeignSource, broker: Broker, service: str) -> None:
        self.source = source
        self._broker: Any = broker
        self._service = service
        self._type = type_name(source.event)
        self._from = f"/foreign/{source.subject}"

    async def declare(self) -> list[Drift]:
        """Make the consumer, and a stream where none keeps the subject. Raises `SetupError`, `Error`."""
        declare: Any = getattr(self._broker, "declare_foreign", None)
        if declare is None:
            name = type(self._broker).__name__
            raise SetupError(f"Service '{self._service}' reads '{self.source.subject}', which {name} cannot: run it on NATS.")
        source = self.source
        return cast("list[Drift]", await declare(source.subject, source.topic, source.group(self._service), given=bool(source.stream)))

    async def subscribe(
        self, topic: str, group: str, receive: Callable[[Delivery], None], *, prefetch: int, lanes: Collection[int] | None = None
    ) -> Subscription:
        """Deliver what comes on the subject, translated; `topic` and `group` are the consumer's names for it, not the broker's.

        A subject of somebody else's has no lanes: whoever has the subject's own lane reads all of it.
        """
        del topic, group, lanes

        def take(delivery: Delivery) -> None:
            receive(self.translated(delivery))

        source = self.source
        return cast("Subscription", await self._broker.subscribe(source.topic, source.group(self._service), take, prefetch=prefetch))

    def translated(self, delivery: Delivery) -> Delivery:
        """Return the delivery as an event; one that is a CloudEvent already stays as it is."""
        found = headers_of(delivery.headers[:MAX_HEADERS].decode("latin-1"))
        if "ce-id" in found or media_type(found.get("content-type", "")).startswith("application/cloudevents"):
            return delivery
        placed = cast("_Placed", delivery)
        content_type = _content_type(found.get("content-type", ""), delivery.data)
        envelope = Envelope(
            placed.place,
            self._from,
            self._type,
            self._key(delivery.data, content_type, placed.place),
            found["traceparent"] if is_traceparent(found.get("traceparent", "")) else "",
            timestamp(placed.stored),
            _correlation(found),
        )
        headers = render(prefix(self._type, self._from, content_type), envelope)
        return ForeignDelivery(delivery, self.source.subject, headers, delivery.data)

    def _key(self, data: bytes, content_type: str, place: str) -> str:
        """Return the order key of the content. What cannot be read gets one of its own, and fails where everything unreadable does."""
        try:
            key = key_of(decode_content(self.source.event, data, content_type)) or ""
        except Error:
            return f"~{place}"
        return key if len(key) <= MAX_KEY else ""


def _content_type(given: str, data: bytes) -> str:
    kind = media_type(given)
    if kind in _UNTOLD:  # FastStream says nothing about bytes
        return JSON if data[:1] in (b"{", b"") else MSGPACK
    return kind if _MEDIA_TYPE.fullmatch(kind) else "application/octet-stream"


def _correlation(headers: dict[str, str]) -> str:
    found = next((headers[name] for name in _CORRELATION if headers.get(name)), "")
    return found[:_MAX_CORRELATION] if found.isascii() and found.isprintable() else ""
