"""Rules about operations, with the names and the meaning they have in buf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protobuf.wkt.google.protobuf.descriptor_pb import MethodOptions

from linkspan.contracts.compat_rule import Change, Rule, method_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from linkspan.contracts.snapshot import MethodShape, Snapshot

__all__ = ["SERVICE_RULES"]

_NEW_ONE: Final = "Keep the operation as it was; add another beside it and mark this one deprecated."


def _deleted(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for name, service in before.services.items():
        if name in after.services:
            for method, old in service.methods.items():
                if method not in after.services[name].methods:
                    yield Change(old.full_name, f"operation '{method}'", "gone", name)


def _request(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in method_pairs(before, after):
        if old.proto.input_type != new.proto.input_type:
            yield Change(old.full_name, f"takes {old.proto.input_type[1:]}", f"takes {new.proto.input_type[1:]}", new.full_name)


def _response(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in method_pairs(before, after):
        if old.proto.output_type != new.proto.output_type:
            yield Change(old.full_name, f"answers {old.proto.output_type[1:]}", f"answers {new.proto.output_type[1:]}", new.full_name)


def _client_streaming(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in method_pairs(before, after):
        was, now = old.proto.client_streaming, new.proto.client_streaming
        if was != now:
            yield Change(old.full_name, _count("takes", many=was), _count("takes", many=now), new.full_name)


def _server_streaming(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in method_pairs(before, after):
        was, now = old.proto.server_streaming, new.proto.server_streaming
        if was != now:
            yield Change(old.full_name, _count("answers with", many=was), _count("answers with", many=now), new.full_name)


def _count(verb: str, *, many: bool) -> str:
    return f"{verb} {'a stream' if many else 'one message'}"


def _idempotency(before: Snapshot, after: Snapshot) -> Iterator[Change]:
    for old, new in method_pairs(before, after):
        was, now = _level(old), _level(new)
        if was != now:
            yield Change(old.full_name, was.name, now.name, new.full_name)


def _level(method: MethodShape) -> MethodOptions.IdempotencyLevel:
    return MethodOptions.IdempotencyLevel.IDEMPOTENCY_UNKNOWN if method.proto.options is None else method.proto.options.idempotency_level


SERVICE_RULES: Final = (
    Rule(
        "RPC_NO_DELETE",
        "PACKAGE",
        "An operation is not removed from its service.",
        "Keep it and mark it deprecated; remove it when nobody calls it any more.",
        _deleted,
    ),
    Rule("RPC_SAME_REQUEST_TYPE", "WIRE_JSON", "An operation keeps its request type.", _NEW_ONE, _request),
    Rule("RPC_SAME_RESPONSE_TYPE", "WIRE_JSON", "An operation keeps its response type.", _NEW_ONE, _response),
    Rule("RPC_SAME_CLIENT_STREAMING", "WIRE_JSON", "An operation goes on taking one message, or a stream.", _NEW_ONE, _client_streaming),
    Rule(
        "RPC_SAME_SERVER_STREAMING",
        "WIRE_JSON",
        "An operation goes on answering with one message, or a stream.",
        _NEW_ONE,
        _server_streaming,
    ),
    Rule(
        "RPC_SAME_IDEMPOTENCY_LEVEL",
        "WIRE_JSON",
        "An operation keeps its idempotency level, by which clients retry and cache.",
        "Keep it a query or a command, as it was; add another operation beside it.",
        _idempotency,
    ),
)
