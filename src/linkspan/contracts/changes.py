"""What changed between two versions, a sentence each: additions too, which break nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from protobuf.wkt.google.protobuf.descriptor_pb import FieldDescriptorProto

from linkspan.contracts.foreign import routes
from linkspan.contracts.ranges import range_text, reserved
from linkspan.options import ext_field, ext_file, ext_message, ext_method

if TYPE_CHECKING:
    from collections.abc import Iterator

    from protobuf.wkt.google.protobuf.descriptor_pb import DescriptorProto, EnumDescriptorProto

    from linkspan.contracts.snapshot import FieldShape, MethodShape, Snapshot

__all__ = ["changes"]

_NAMED: Final = (FieldDescriptorProto.Type.MESSAGE, FieldDescriptorProto.Type.ENUM, FieldDescriptorProto.Type.GROUP)


def changes(before: Snapshot | None, after: Snapshot) -> list[str]:
    """Return what was added, removed and changed, in order of names; a package that is new or gone is one sentence."""
    old = {} if before is None else dict(_elements(before))
    new = dict(_elements(after))
    gone, fresh = _packages(before) - after.packages, after.packages - _packages(before)
    found = [f"removed package {name}" for name in sorted(gone)] + [f"added package {name}: {_size(name, after)}" for name in sorted(fresh)]
    for name in sorted({*old, *new}):
        (was, package) = old.get(name, ("", ""))
        (now, newer) = new.get(name, ("", ""))
        if package in gone or newer in fresh or was == now:
            continue
        if not was:
            found.append(f"added {name}: {now}")
        elif not now:
            found.append(f"removed {name}: {was}")
        else:
            found.append(f"changed {name}: {was} -> {now}")
    return found


def _size(package: str, version: Snapshot) -> str:
    """Count what is in a package; entries of maps are no messages of their own."""
    entries = sum(
        each.package == package and each.proto.options is not None and each.proto.options.map_entry for each in version.messages.values()
    )
    counts = {
        "messages": sum(each.package == package for each in version.messages.values()) - entries,
        "enums": sum(each.package == package for each in version.enums.values()),
        "operations": sum(len(each.methods) for each in version.services.values() if each.package == package),
    }
    return ", ".join(f"{count} {what if count > 1 else what[:-1]}" for what, count in counts.items() if count) or "nothing in it"


def _packages(version: Snapshot | None) -> set[str]:
    return version.packages if version is not None else set()


def _elements(version: Snapshot) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the full name of each element, what it is, and its package."""
    for file in version.files.values():
        yield f"file {file.name}", (f"package {file.package}{_options(file, ext_file)}", file.package)
    for message in version.messages.values():
        if message.proto.options is None or not message.proto.options.map_entry:
            yield message.full_name, (f"message{_options(message.proto, ext_message)}{_reserved(message.proto)}", message.package)
            for field in message.fields.values():
                yield field.full_name, (_field(field, version), message.package)
    for enum in version.enums.values():
        yield enum.full_name, (f"enum{_reserved(enum.proto)}", enum.package)
        for value in enum.proto.value:
            yield f"{enum.full_name}.{value.name}", (f"value {value.number}{_deprecated(value)}", enum.package)
    for service in version.services.values():
        yield service.full_name, ("service", service.package)
        for method in service.methods.values():
            yield method.full_name, (_method(method, version), service.package)


def _field(field: FieldShape, version: Snapshot) -> str:
    proto = field.proto
    kind = _type(field)
    if field.is_map:
        entry = version.messages[proto.type_name.removeprefix(".")]
        kind = f"map of {_type(entry.fields[1])} to {_type(entry.fields[2])}"
    elif field.cardinality != "single":
        kind = f"{field.cardinality} {kind}"
    elif proto.proto3_optional:
        kind = f"optional {kind}"
    oneof = f", in oneof {field.oneof}" if field.oneof else ""
    return f"{kind} = {proto.number}{oneof}{_options(proto, ext_field)}{_deprecated(proto)}"


def _type(field: FieldShape) -> str:
    return field.proto.type_name.removeprefix(".") if field.type in _NAMED else field.type.name.lower()


def _method(method: MethodShape, version: Snapshot) -> str:
    proto = method.proto
    takes = f"{'stream ' if proto.client_streaming else ''}{proto.input_type[1:]}"
    answers = f"{'stream ' if proto.server_streaming else ''}{proto.output_type[1:]}"
    level = f", {proto.options.idempotency_level.name}" if proto.options is not None and proto.options.idempotency_level else ""
    served = "".join(f", {route}" for route in routes(proto, version))
    return f"({takes}) returns ({answers}){level}{_options(proto, ext_method)}{served}{_deprecated(proto)}"


def _options(proto: Any, extension: Any) -> str:
    if proto.options is None or extension not in proto.options:
        return ""
    rules = json.loads(proto.options[extension].to_json())
    return "".join(f", {name}" if value is True else f", {name} {json.dumps(value)}" for name, value in sorted(rules.items()))


def _deprecated(proto: Any) -> str:
    return ", deprecated" if proto.options is not None and proto.options.deprecated else ""


def _reserved(proto: DescriptorProto | EnumDescriptorProto) -> str:
    kept = [*map(range_text, sorted(reserved(proto))), *(f"'{name}'" for name in sorted(proto.reserved_name))]
    return f"{_deprecated(proto)}{', reserved ' + ', '.join(kept) if kept else ''}"
