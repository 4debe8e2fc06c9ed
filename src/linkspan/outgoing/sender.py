"""From events and durable commands to messages that a broker can carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from linkspan import envelope as envelopes
from linkspan.context import Oversized, keyed_id
from linkspan.envelope import Envelope
from linkspan.errors import Code, Error
from linkspan.message import is_event, key_of, package_of, type_name
from linkspan.operation import EventType, Operation
from linkspan.owner import ALL
from linkspan.ports import Outgoing
from linkspan.validation import Check, check_of
from linkspan.when import NOW

if TYPE_CHECKING:
    from linkspan.owner import Owned
    from linkspan.ports import Runtime
    from linkspan.when import When

__all__ = ["MAX_MESSAGE", "Cause", "Origin", "Sender", "command_topic", "event_topic"]

MAX_MESSAGE = 1_000_000
"""The largest message in bytes, headers included: under the brokers' own limit of 1 MiB."""


def event_topic(package: str) -> str:
    """Return the topic of a package's events."""
    return f"{package}.events"


def command_topic(package: str) -> str:
    """Return the topic of a package's durable commands."""
    return f"{package}.commands"


class Cause(Protocol):
    """What a message comes from: a handler's context, or an `Origin`."""

    @property
    def cause(self) -> str:
        """Return the id of the message or call that led to it, empty where it is the first."""
        ...

    @property
    def trace(self) -> str:
        """Return the traceparent of its span."""
        ...

    @property
    def correlation(self) -> str:
        """Return what ties the flow together."""
        ...

    def message_id(self, what: str) -> str:
        """Return the id of the next message, which is `what`: its type and key."""
        ...


class Origin(msgspec.Struct, gc=False):
    """The beginning of a flow outside of any handler: it stands for one message, whose id it is."""

    id: str
    trace: str
    correlation: str = ""
    cause: str = ""

    def message_id(self, what: str) -> str:  # noqa: ARG002 - it stands for one message only
        """Return its own id."""
        return self.id


def _is_event_type(value: object) -> bool:
    return isinstance(value, EventType)


def _is_operation(value: object) -> bool:
    return isinstance(value, Operation)


class _Kind(msgspec.Struct, frozen=True, gc=False):
    """What is the same for every message of a type."""

    topic: str
    name: str
    full_name: str
    head: str
    check: Check | None


class Sender:
    """Makes outgoing messages for one source."""

    __slots__ = ("_above", "_clock", "_kinds", "_millis", "_owned", "_stamp", "source")

    def __init__(self, name: str, runtime: Runtime, owns: Owned = ALL, above: int | None = None) -> None:
        self.source = f"/{name}"
        self._above = above or MAX_MESSAGE  # in bytes, beyond which a content goes to the blob place, where there is one
        self._clock = runtime.clock
        self._owned = owns
        self._kinds: dict[object, _Kind] = {}
        self._millis = 0
        self._stamp = ""

    def event(self, cause: Cause, event: Any, message: Any = None, when: When = NOW) -> Outgoing:
        """Make an event's message. Raises `Error`: INVALID_ARGUMENT (no key, too large, broken rule), FAILED_PRECONDITION (not ours)."""
        if message is None:
            cls = cast("Any", type(event))
            kind = self._kinds.get(cls) or self._new_event(cls)
            return self._outgoing(cause, kind, event, "", when.expires)
        cls = cast("Any", type(message))
        if not _is_event_type(event) or cls is not event.message:
            name = getattr(event, "full_name", "this")
            raise Error(Code.INVALID_ARGUMENT, f"'{name}' was given a {cls.__name__}: publish its own message.")
        kind = self._kinds.get(cls) or self._add_event(cls)
        return self._outgoing(cause, kind, message, "", when.expires)

    def command(self, cause: Cause, operation: Any, request: Any, key: str | None, when: When = NOW) -> Outgoing:
        """Make a durable command's message; a given `key` fixes its id, so that it has one effect however often it is sent."""
        if type(request) is not operation.request:
            raise Error(Code.INVALID_ARGUMENT, f"'{operation.full_name}' was given a {type(request).__name__}: send its own request.")
        if operation.kind != "command":
            raise Error(Code.INVALID_ARGUMENT, f"Cannot send '{operation.full_name}', which is a query: call it.")
        kind = self._kinds.get(operation) or self._add(operation, operation.full_name, command_topic(operation.package), operation.package)
        id_ = "" if key is None else keyed_id(self.source, operation.full_name, key)
        over = when.until(self._clock.now(), operation.expires) if operation.expires or when.expires else 0.0
        return self._outgoing(cause, kind, request, id_, over)

    def _new_event(self, cls: Any) -> _Kind:
        if not hasattr(cls, "desc") or not is_event(cls):
            text = f"Cannot publish '{cls.__name__}', which is no event: derive it from Event, or send a command."
            raise Error(Code.INVALID_ARGUMENT, text)
        return self._add_event(cls)

    def _add_event(self, cls: Any) -> _Kind:
        package = package_of(cls)
        self._owned.check(package, type_name(cls))
        return self._add(cls, type_name(cls), event_topic(package), package)

    def _add(self, what: Any, full_name: str, topic: str, package: str) -> _Kind:
        check = check_of(what.request if _is_operation(what) else what)
        kind = _Kind(topic, full_name.removeprefix(f"{package}."), full_name, envelopes.prefix(full_name, self.source), check)
        self._kinds[what] = kind
        return kind

    def _outgoing(self, cause: Cause, kind: _Kind, message: Any, id_: str, over: float) -> Outgoing:
        if kind.check is not None:
            kind.check(message)
        key = key_of(message)
        if not key or len(key) > envelopes.MAX_KEY:
            if key:
                text = f"'{kind.full_name}' has an order key of {len(key)} characters: use at most {envelopes.MAX_KEY}."
                raise Error(Code.INVALID_ARGUMENT, text)
            raise Error(Code.INVALID_ARGUMENT, f"'{kind.full_name}' has no order key: mark a field with key=True and give it a value.")
        try:
            data = message.to_binary()
        except Exception as error:
            text = f"'{kind.full_name}' cannot be encoded ({type(error).__name__}): check its fields' types."
            raise Error(Code.INVALID_ARGUMENT, text) from error
        id_ = id_ or cause.message_id(f"{kind.full_name} {key}")
        expires = envelopes.timestamp(over) if over else ""
        correlation = cause.correlation
        if correlation == id_:
            correlation = ""  # the first message of a flow
        envelope = Envelope(id_, self.source, kind.full_name, key, cause.trace, self._time(), correlation, cause.cause, expires)
        headers = envelopes.render(kind.head, envelope)
        outgoing = Outgoing(kind.topic, kind.name, envelopes.lane_of(key), id_, key, headers, data)
        if len(data) + len(headers) > self._above:
            if self._above < MAX_MESSAGE:
                raise Oversized(outgoing)
            text = f"'{kind.full_name}' has {len(data)} bytes, {MAX_MESSAGE} fit: set App(blobs=...) to keep large contents elsewhere."
            raise Error(Code.INVALID_ARGUMENT, text)
        return outgoing

    def _time(self) -> str:
        now = self._clock.now()
        millis = int(now * 1000)
        if millis != self._millis:
            self._millis, self._stamp = millis, envelopes.timestamp(now)
        return self._stamp
