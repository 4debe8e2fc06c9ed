"""What a rule of compatibility is, what it finds, and the pairs that rules look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from linkspan.contracts.snapshot import EnumShape, FieldShape, MessageShape, MethodShape, Snapshot

__all__ = ["Change", "Rule", "enum_pairs", "field_pairs", "message_pairs", "method_pairs"]


@dataclass(frozen=True, slots=True)
class Change:
    """What a rule found: `where` is a full name of the older version, `near` the closest one that is still there."""

    where: str
    was: str
    now: str
    near: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `group` is 'WIRE_JSON' or 'PACKAGE' for rules with buf's names and meaning, 'linkspan' for ours.

    `check` compares an older version with the present one; `instead` says what to do about a finding.
    """

    id: str
    group: Literal["WIRE_JSON", "PACKAGE", "linkspan"]
    says: str
    instead: str
    check: Callable[[Snapshot, Snapshot], Iterator[Change]]
    level: Literal["error", "warning"] = "error"


def message_pairs(before: Snapshot, after: Snapshot) -> Iterator[tuple[MessageShape, MessageShape]]:
    """Walk the messages that both versions have."""
    for name, old in before.messages.items():
        if name in after.messages:
            yield old, after.messages[name]


def field_pairs(before: Snapshot, after: Snapshot) -> Iterator[tuple[FieldShape, FieldShape]]:
    """Walk the fields and extensions that both versions have: those of the same message and number."""
    for old, new in message_pairs(before, after):
        for number, field in old.fields.items():
            if number in new.fields:
                yield field, new.fields[number]
    for place, field in before.extensions.items():
        if place in after.extensions:
            yield field, after.extensions[place]


def enum_pairs(before: Snapshot, after: Snapshot) -> Iterator[tuple[EnumShape, EnumShape]]:
    """Walk the enums that both versions have."""
    for name, old in before.enums.items():
        if name in after.enums:
            yield old, after.enums[name]


def method_pairs(before: Snapshot, after: Snapshot) -> Iterator[tuple[MethodShape, MethodShape]]:
    """Walk the operations that both versions have."""
    for name, service in before.services.items():
        methods = after.services[name].methods if name in after.services else {}
        for method, old in service.methods.items():
            if method in methods:
                yield old, methods[method]
