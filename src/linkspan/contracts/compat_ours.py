"""Rules of our own: what Linkspan's options promise to those who call, publish and consume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from protobuf.wkt.google.protobuf.descriptor_pb import MethodOptions

from linkspan.contracts.compat_rule import Change, Rule, field_pairs, message_pairs, method_pairs
from linkspan.contracts.foreign import address, option, routes
from linkspan.contracts.narrowing import narrowed
from linkspan.contracts.snapshot import nested_name
from linkspan.options import MethodRules, ext_field, ext_file, ext_message, ext_method

if TYPE_CHECKING:
    from collections.abc import Iterator

    from linkspan.contracts.snapshot import FieldShape, MessageShape, MethodShape, Snapshot

__all__ = ["OUR_RULES"]


def _rules(proto: Any, extension: Any) -> Any:
    """Return our option on an element, or None where it has none."""
    return proto.options[extension] if proto.options is not None and extension in proto.options else None


# --- messages and fields ---------------------------------------------------------------------------


def _key(message: MessageShape) -> FieldShape | None:
    for field in message.fields.values():
        rules = _rules(field.proto, ext_field)
        if rules is not None and rules.key:
            return field
    return None


def _order_key(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in message_pairs(before, after):
        was, now = _key(old), _key(new)
        if was is not None and (now is None or was.proto.number != now.proto.number):
            text = "without order key" if now is None else f"ordered by '{now.proto.name}'"
            yield Change(old.full_name, f"ordered by '{was.proto.name}'", text, new.full_name if now is None else now.full_name)


def _personal(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in field_pairs(before, after):
        was, now = _rules(old.proto, ext_field), _rules(new.proto, ext_field)
        if was is not None and was.pii and not (now is not None and now.pii):
            yield Change(old.full_name, "personal data, masked", "not masked", new.full_name)


def _is_event(message: MessageShape) -> bool:
    rules = _rules(message.proto, ext_message)
    return rules is not None and rules.event


def _validation(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """Compare `buf.validate` rules of fields, then those of messages and of their oneofs."""
    for old, new in field_pairs(before, after):
        was, now = option(old.proto, "buf.validate.field", before), option(new.proto, "buf.validate.field", after)
        yield from (Change(old.full_name, *each, new.full_name) for each in narrowed(was, now))
    for message, newer in message_pairs(before, after):
        was, now = option(message.proto, "buf.validate.message", before), option(newer.proto, "buf.validate.message", after)
        yield from (Change(message.full_name, *each, newer.full_name) for each in narrowed(was, now))
        asked = _asked(message, before)
        for name in sorted(_asked(newer, after) - asked):
            if any(oneof.name == name for oneof in message.proto.oneof_decl):
                yield Change(f"{message.full_name}.{name}", "optional", "required", newer.full_name)


def _asked(message: MessageShape, version: Snapshot) -> set[str]:
    """Return the oneofs of which one case is required."""
    return {oneof.name for oneof in message.proto.oneof_decl if option(oneof, "buf.validate.oneof", version).get("required")}


def _event_mark(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in message_pairs(before, after):
        if _is_event(old) != _is_event(new):
            yield Change(old.full_name, _kind_of(old), _kind_of(new), new.full_name)


def _kind_of(message: MessageShape) -> str:
    return "an event" if _is_event(message) else "a plain message"


def _event_package(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """Find events that have moved: gone from one package, new in another."""
    for name, old in before.messages.items():
        if name in after.messages or not _is_event(old):
            continue
        short = nested_name(name, old.package)
        for other, new in after.messages.items():
            if other not in before.messages and _is_event(new) and nested_name(other, new.package) == short:
                yield Change(name, f"in topic '{old.package}.events'", f"in topic '{new.package}.events'", other)


def _owners(version: Snapshot) -> dict[str, str]:
    """Return who owns the packages that have events."""
    publishing = {message.package for message in version.messages.values() if _is_event(message)}
    found: dict[str, str] = dict.fromkeys(publishing, "")
    for file in version.files.values():
        rules = _rules(file, ext_file)
        if rules is not None and rules.owner and file.package in found:
            found[file.package] = rules.owner
    return found


def _event_owner(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    now = _owners(after)
    for package, owner in sorted(_owners(before).items()):
        if owner and now.get(package, owner) != owner:
            yield Change(package, f"owned by '{owner}'", f"owned by '{now[package] or 'nobody'}'", package)


# --- operations ------------------------------------------------------------------------------------


def _of(method: MethodShape) -> MethodRules:
    return _rules(method.proto, ext_method) or MethodRules()


def _kind(method: MethodShape) -> str:
    if _of(method).command:
        return "a command"
    options = method.proto.options
    reading = options is not None and options.idempotency_level == MethodOptions.IdempotencyLevel.NO_SIDE_EFFECTS
    return "a query" if reading else "neither query nor command"


def _same_kind(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in method_pairs(before, after):
        if {_kind(old), _kind(new)} == {"a query", "a command"}:
            yield Change(old.full_name, _kind(old), _kind(new), new.full_name)


def _answer(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in method_pairs(before, after):
        if _kind(old) == _kind(new) == "a command":
            was, now = _of(old).answer or "either", _of(new).answer or "either"
            if now not in ("either", was):
                yield Change(old.full_name, f"answers '{was}'", f"answers '{now}'", new.full_name)


def _expiry(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in method_pairs(before, after):
        was, now = _of(old).expires, _of(new).expires
        if now and (not was or now < was):
            yield Change(old.full_name, _seconds(was), _seconds(now), new.full_name)


def _seconds(seconds: float) -> str:
    return f"carried out within {seconds:g} s" if seconds else "carried out however late"


def _routes(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in method_pairs(before, after):
        kept = {address(route) for route in routes(new.proto, after)}
        for route in routes(old.proto, before):
            if address(route) not in kept:
                yield Change(old.full_name, f"served at {route}", "not served there", new.full_name)


OUR_RULES: Final = (
    Rule(
        "MESSAGE_SAME_ORDER_KEY",
        "linkspan",
        "A message stays ordered by the same field.",
        "Keep `key=True` where it was: messages on their way are in the lane of the old key, and their order would be lost.",
        _order_key,
    ),
    Rule(
        "FIELD_PII_NO_DELETE",
        "linkspan",
        "Personal data stays marked.",
        "Put `pii=True` back: logs and consoles would show what they masked so far.",
        _personal,
    ),
    Rule(
        "FIELD_VALIDATION_NO_NARROW",
        "linkspan",
        "What was valid stays valid.",
        "Keep the old bound and check the new one in the handler: requests of older clients, and messages on their way, would be refused.",
        _validation,
    ),
    Rule(
        "MESSAGE_SAME_EVENT",
        "linkspan",
        "An event stays an event, and a plain message one.",
        "Keep it what it was: consumers subscribe to events by their type; declare a new event beside it.",
        _event_mark,
    ),
    Rule(
        "EVENT_SAME_PACKAGE",
        "linkspan",
        "An event stays in its package, which names its topic.",
        "Leave it where consumers look for it; publish both until all have moved.",
        _event_package,
    ),
    Rule(
        "EVENT_SAME_OWNER",
        "linkspan",
        "The events of a package keep their owner.",
        "Agree with the old owner and with those who consume, then accept the change with its reason.",
        _event_owner,
    ),
    Rule(
        "RPC_SAME_KIND",
        "linkspan",
        "A query stays a query, a command a command.",
        "Declare another operation: clients repeat and cache queries, and send commands durably.",
        _same_kind,
    ),
    Rule(
        "RPC_ANSWER_NO_NARROW",
        "linkspan",
        "A command goes on answering in the ways it did.",
        "Take `answer='either'`, or the old one: callers of the other way would be refused.",
        _answer,
    ),
    Rule(
        "RPC_EXPIRY_NO_SHORTEN",
        "linkspan",
        "A durable command does not expire sooner.",
        "Ask those who send it whether the shorter time is enough for their longest outage.",
        _expiry,
        level="warning",
    ),
    Rule(
        "RPC_HTTP_ROUTE_NO_DELETE",
        "linkspan",
        "A resource route stays served.",
        "Keep the old route as an additional one beside the new.",
        _routes,
    ),
)
