"""AsyncAPI 3.1 of contracts: topics, what is published to them and taken from them (https://www.asyncapi.com/docs/reference/specification/v3.1.0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from linkspan.batch import BATCH, NAME, TYPE
from linkspan.contracts.comments import comments
from linkspan.contracts.descriptors import events_of, services_of, with_imports
from linkspan.contracts.json_schema import Schemas
from linkspan.contracts.payload_proto import payload_proto
from linkspan.envelope import JSON, LANES, MAX_KEY, PROTOBUF
from linkspan.message import has_key, package_of, traits_of, type_name
from linkspan.operation import Command

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import protobuf

    from linkspan.contract import Contract

__all__ = ["Member", "asyncapi", "members_of"]

_PROTOBUF_FORMAT: Final = "application/vnd.google.protobuf;version=3"
_HEADERS: Final = "#/components/schemas/cloudevents.headers"
_TEXT: Final = {"type": "string", "minLength": 1}
_MOMENT: Final = {"type": "string", "format": "date-time"}
_CLOUDEVENTS: Final[dict[str, Any]] = {
    "type": "object",
    "description": "CloudEvents 1.0 in binary mode. Values are percent-encoded outside of printable ASCII.",
    "required": ["ce-specversion", "ce-type", "ce-source", "ce-id", "ce-partitionkey"],
    "properties": {
        "ce-specversion": {"type": "string", "const": "1.0"},
        "ce-type": {**_TEXT, "description": "The full name of the event or of the command's operation."},
        "ce-source": {**_TEXT, "description": "The service that sent it, as in /orders."},
        "ce-id": {**_TEXT, "maxLength": MAX_KEY, "description": "With the source, names the message: a copy has the same."},
        "ce-time": {**_MOMENT, "description": "When it was committed."},
        "ce-datacontenttype": {"type": "string", "description": "How the payload is encoded."},
        "ce-partitionkey": {**_TEXT, "maxLength": MAX_KEY, "description": "The order key: messages with the same key keep their order."},
        "ce-sequence": {"type": "string", "pattern": "^[0-9]{1,18}$", "description": "Counts the messages of one source and key."},
        "ce-correlationid": {"type": "string", "description": "The id of the request with which the flow began."},
        "ce-causationid": {"type": "string", "description": "The id of the message that this one came from."},
        "ce-expirytime": {**_MOMENT, "description": "When a command is no longer to be carried out."},
        "traceparent": {"type": "string", "description": "The trace that it belongs to (W3C Trace Context)."},
    },
}

_BATCH: Final[dict[str, Any]] = {
    "name": TYPE,
    "title": "batch",
    "summary": "Many messages of one topic, compressed with zstd.",
    "description": "Linkspan's own format, read by Linkspan: its page 'Wire format' says how. Messages that come alone are not in batches.",
    "contentType": BATCH,
    "headers": {
        "allOf": [
            {"$ref": _HEADERS},
            {"type": "object", "properties": {"ce-type": {"const": TYPE}, "ce-datacontenttype": {"const": BATCH}}},
        ]
    },
    "payload": {"type": "string", "format": "binary"},
}


@dataclass(frozen=True, slots=True)
class Member:
    """Who sends and takes messages: a service of an app or, where only contracts are known, a service contract.

    Attributes:
        name: Its name.
        publishes: Events that it owns.
        takes: Commands that it carries out.
        reacts: Events of others that it handles.
        batches: Topics that it publishes to in batches.
    """

    name: str
    publishes: tuple[type[protobuf.Message[Any]], ...] = ()
    takes: tuple[Command[Any, Any], ...] = ()
    reacts: tuple[type[protobuf.Message[Any]], ...] = ()
    batches: tuple[str, ...] = ()


def members_of(contract: Contract) -> list[Member]:
    """Return the sides that a contract itself declares: the owner of its events, and who takes its durable commands."""
    services = services_of(contract)
    takes = [Member(each.full_name, takes=tuple(op for op in each.operations if isinstance(op, Command))) for each in services]
    events = events_of(contract)
    return [*([Member(contract.package, publishes=events)] if events else []), *(each for each in takes if each.takes)]


def asyncapi(
    contracts: Sequence[Contract], members: Iterable[Member] | None = None, *, title: str = "", version: str = ""
) -> dict[str, Any]:
    """Return the AsyncAPI document of contracts.

    `members` are the services of an app; without them, each contract's own side is told. `title` defaults to the packages, `version`
    to the version at the end of the first.
    """
    document = _Document(contracts)
    told = [member for contract in contracts for member in members_of(contract)] if members is None else list(members)
    for member in told:
        document.add(member)
    packages = [contract.package for contract in contracts]
    about = {"title": title or ", ".join(packages), "version": version or packages[0].rpartition(".")[2]}
    return {
        "asyncapi": "3.1.0",
        "info": {**about, **({"description": text} if (text := document.texts.get(packages[0], "")) and len(packages) == 1 else {})},
        "defaultContentType": PROTOBUF,
        "channels": document.channels,
        "operations": document.operations,
        "components": {
            "messages": document.messages,
            "schemas": {**dict(sorted(document.schemas.defined.items())), "cloudevents.headers": _CLOUDEVENTS},
        },
    }


@dataclass(frozen=True, slots=True)
class _Sent:
    """A kind of message: an event by its type, a command by its operation."""

    name: str
    package: str
    message: type[protobuf.Message[Any]]
    command: Command[Any, Any] | None = None


def _event(cls: type[protobuf.Message[Any]]) -> _Sent:
    return _Sent(type_name(cls), package_of(cls), cls)


class _Document:
    """The parts of one document, as they come together."""

    def __init__(self, contracts: Sequence[Contract]) -> None:
        self.texts: Mapping[str, str] = {
            name: text for contract in with_imports(contracts) for name, text in comments(contract.module).items()
        }
        self.channels: dict[str, dict[str, Any]] = {}
        self.operations: dict[str, dict[str, Any]] = {}
        self.messages: dict[str, dict[str, Any]] = {}
        self.schemas = Schemas("#/components/schemas/")

    def add(self, member: Member) -> None:
        """Add what a member sends and takes, and the topics that carry it."""
        for event in member.publishes:
            if has_key(event):
                self._add(member, "send", _event(event))
        for event in member.reacts:
            self._add(member, "receive", _event(event))
        for command in member.takes:
            if command.answer != "now" and has_key(command.request):
                self._add(member, "receive", _Sent(command.full_name, command.package, command.request, command))
        for topic in member.batches:
            self._add_batches(member, topic)

    def _add_batches(self, member: Member, topic: str) -> None:
        """Say that messages of a topic may come in batches."""
        told = self.operations.get(f"{member.name}.send.{topic}")
        if told is None:
            return
        self.messages[TYPE] = _BATCH
        types = self.channels[topic]["parameters"]["type"]
        types["enum"] = sorted({*types["enum"], NAME})
        self.channels[topic]["messages"][TYPE] = {"$ref": f"#/components/messages/{TYPE}"}
        told["messages"].append({"$ref": f"#/channels/{topic}/messages/{TYPE}"})

    def _add(self, member: Member, action: Literal["send", "receive"], sent: _Sent) -> None:
        package, name, kind = sent.package, sent.name, "events" if sent.command is None else "commands"
        topic = f"{package}.{kind}"
        channel = self.channels.setdefault(topic, _channel(topic, package, kind))
        channel["parameters"]["type"]["enum"] = sorted({*channel["parameters"]["type"].get("enum", ()), name.removeprefix(f"{package}.")})
        told = self.operations.setdefault(f"{member.name}.{action}.{topic}", _operation(member, action, topic, kind))
        # What we send is protobuf; what comes from others may be JSON too.
        for encoding in (PROTOBUF,) if action == "send" else (PROTOBUF, JSON):
            message_id = name if encoding == PROTOBUF else f"{name}.json"
            self.messages[message_id] = self._message(sent, encoding)
            channel["messages"][message_id] = {"$ref": f"#/components/messages/{message_id}"}
            told["messages"].append({"$ref": f"#/channels/{topic}/messages/{message_id}"})

    def _message(self, sent: _Sent, encoding: str) -> dict[str, Any]:
        name, traits, desc = sent.name, traits_of(sent.message), sent.message.desc()
        as_json = self.schemas.reference(desc)
        as_proto = {"schemaFormat": _PROTOBUF_FORMAT, "schema": payload_proto(desc, self.texts)}
        kind = {"type": "object", "properties": {"ce-type": {"const": name}, "ce-datacontenttype": {"const": encoding}}}
        made: dict[str, Any] = {
            "name": name,
            "title": name.rpartition(".")[2] + (" as JSON" if encoding == JSON else ""),
            "contentType": encoding,
            "headers": {"allOf": [{"$ref": _HEADERS}, kind]},
            "payload": as_json if encoding == JSON else as_proto,
            "correlationId": {"location": "$message.header#/ce-correlationid"},
            "x-linkspan-key": traits.key,
            "x-linkspan-json-schema": as_json,
        }
        if text := self.texts.get(name) or self.texts.get(traits.full_name):
            made |= {"summary": text.partition("\n")[0], "description": text}
        if desc.deprecated:
            made["deprecated"] = True
        if traits.pii:
            made["x-linkspan-pii"] = sorted(traits.pii)
        if sent.command is not None and sent.command.expires:
            made["x-linkspan-expires"] = sent.command.expires  # seconds
        return made


def _channel(topic: str, package: str, kind: str) -> dict[str, Any]:
    lanes = f"One of {LANES} parts of the topic, from 0: the CRC-32 of the order key, modulo {LANES}."
    return {
        "address": f"{topic}.{{lane}}.{{type}}",
        "title": topic,
        "description": f"The {kind} of {package}, in order per key. On NATS: a stream, of which these are the subjects.",
        "parameters": {"type": {"description": "The name of the message inside its package."}, "lane": {"description": lanes}},
        "messages": {},
    }


def _operation(member: Member, action: str, topic: str, kind: str) -> dict[str, Any]:
    verb = "publishes events" if action == "send" else "reacts to events" if kind == "events" else "carries out commands"
    made: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic}"},
        "title": f"{member.name} {verb}",
        "tags": [{"name": member.name}],
        "messages": [],
    }
    if action == "receive":
        made["bindings"] = {"nats": {"queue": member.name, "bindingVersion": "0.1.0"}}
    return made
