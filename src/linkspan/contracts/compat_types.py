"""Rules about enums, messages, files and packages, with the names and the meaning they have in buf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from linkspan.contracts.compat_rule import Change, Rule, enum_pairs, message_pairs
from linkspan.contracts.ranges import missing, names_reserved, range_text, reserved, reserves

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from linkspan.contracts.snapshot import EnumShape, MessageShape, ServiceShape, Snapshot

__all__ = ["TYPE_RULES"]

_RESERVE: Final = "Keep the value; to remove it after all, reserve its number and its name for ever."
_UNRESERVED: Final = "Put it back on the `reserved` list: what was used once is never used again."
_KEEP: Final = "Keep it and mark it deprecated; remove it when nothing that is stored or still running uses it."


# --- enums -----------------------------------------------------------------------------------------


def _value_number(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in enum_pairs(before, after):
        for number, names in old.values.items():
            if number not in new.values and not reserves(new.proto, number):
                yield Change(f"{old.full_name}.{names[0]}", f"value {number}", f"gone, and {number} is not reserved", new.full_name)


def _value_name(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in enum_pairs(before, after):
        kept = names_reserved(new.proto)
        for number, names in old.values.items():
            open_names = [name for name in names if name not in kept]
            if number not in new.values and open_names:
                now = f"gone, and '{open_names[0]}' is not reserved"
                yield Change(f"{old.full_name}.{open_names[0]}", f"value '{open_names[0]}'", now, new.full_name)


def _value_same_name(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """Let names be added to a number, never taken away: readers of JSON know the old ones."""
    for old, new in enum_pairs(before, after):
        for number, names in old.values.items():
            now = new.values.get(number, ())
            if now and not set(names) <= set(now):
                where = f"{old.full_name}.{next(name for name in names if name not in now)}"
                yield Change(where, _quoted(names), _quoted(now), f"{new.full_name}.{now[0]}")


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


def _enum_json(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in enum_pairs(before, after):
        yield from _json(old, new)


def _message_json(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in message_pairs(before, after):
        yield from _json(old, new)


def _json(old: EnumShape | MessageShape, new: EnumShape | MessageShape) -> Iterator[Change]:
    if old.features.json and not new.features.json:
        yield Change(old.full_name, "JSON allowed", "JSON with best effort only", new.full_name)


# --- reserved --------------------------------------------------------------------------------------


def _reserved_enum(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in enum_pairs(before, after):
        yield from _still_reserved(old, new)


def _reserved_message(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in message_pairs(before, after):
        yield from _still_reserved(old, new)


def _still_reserved(old: EnumShape | MessageShape, new: EnumShape | MessageShape) -> Iterator[Change]:
    for wanted in reserved(old.proto):
        gaps = ", ".join(map(range_text, missing(wanted, reserved(new.proto))))
        if gaps:
            yield Change(old.full_name, f"{range_text(wanted)} reserved", f"{gaps} not reserved", new.full_name)
    for name in sorted(names_reserved(old.proto) - names_reserved(new.proto)):
        yield Change(old.full_name, f"'{name}' reserved", f"'{name}' not reserved", new.full_name)


# --- files and packages ----------------------------------------------------------------------------


def _file_package(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for name, old in before.files.items():
        new = after.files.get(name)
        if new is not None and old.package != new.package:
            yield Change(old.package, f"package '{old.package}' in {name}", f"package '{new.package}'", new.package)


def _package(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for package in sorted(before.packages - after.packages):
        yield Change(package, f"package '{package}'", "gone", "")


def _no_message_gone(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    yield from _gone("message", before.messages, after.messages, after.packages)


def _no_enum_gone(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    yield from _gone("enum", before.enums, after.enums, after.packages)


def _no_service_gone(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    yield from _gone("service", before.services, after.services, after.packages)


def _gone(
    what: str,
    before: Mapping[str, MessageShape] | Mapping[str, EnumShape] | Mapping[str, ServiceShape],
    after: Mapping[str, object],
    packages: set[str],
) -> Iterator[Change]:
    """Find what a package has lost; a package that is gone as a whole is one finding of its own."""
    for name, shape in before.items():
        if name not in after and shape.package in packages:
            yield Change(name, f"{what} '{name}'", "gone", name.rpartition(".")[0])


TYPE_RULES: Final = (
    Rule(
        "ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED",
        "WIRE_JSON",
        "A removed enum value reserves its number.",
        _RESERVE,
        _value_number,
    ),
    Rule(
        "ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED",
        "WIRE_JSON",
        "A removed enum value reserves its name.",
        _RESERVE,
        _value_name,
    ),
    Rule(
        "ENUM_VALUE_SAME_NAME",
        "WIRE_JSON",
        "An enum value keeps its name, which JSON carries.",
        "Keep the old name; for a better one add a value with a new number.",
        _value_same_name,
    ),
    Rule(
        "ENUM_SAME_JSON_FORMAT",
        "WIRE_JSON",
        "An enum that is allowed in JSON stays so.",
        "Keep the syntax, or set `features.json_format = ALLOW`.",
        _enum_json,
    ),
    Rule(
        "MESSAGE_SAME_JSON_FORMAT",
        "WIRE_JSON",
        "A message that is allowed in JSON stays so.",
        "Keep the syntax, or set `features.json_format = ALLOW`.",
        _message_json,
    ),
    Rule("RESERVED_ENUM_NO_DELETE", "WIRE_JSON", "What an enum reserves stays reserved.", _UNRESERVED, _reserved_enum),
    Rule("RESERVED_MESSAGE_NO_DELETE", "WIRE_JSON", "What a message reserves stays reserved.", _UNRESERVED, _reserved_message),
    Rule(
        "FILE_SAME_PACKAGE",
        "WIRE_JSON",
        "A file keeps its package, which topics, paths and type names begin with.",
        "Keep the package; make a new contract beside it, and move users over.",
        _file_package,
    ),
    Rule("PACKAGE_NO_DELETE", "PACKAGE", "A package is not removed.", _KEEP, _package),
    Rule("PACKAGE_MESSAGE_NO_DELETE", "PACKAGE", "A message is not removed from its package.", _KEEP, _no_message_gone),
    Rule("PACKAGE_ENUM_NO_DELETE", "PACKAGE", "An enum is not removed from its package.", _KEEP, _no_enum_gone),
    Rule("PACKAGE_SERVICE_NO_DELETE", "PACKAGE", "A service is not removed from its package.", _KEEP, _no_service_gone),
)
