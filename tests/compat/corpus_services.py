"""Changes to operations."""

from __future__ import annotations

from tests.compat.case import Case, case


def changed(rule: str, name: str, was: str, breaks: str, allows: str, *, also: tuple[str, ...] = ()) -> Case:
    """One service with three sets of operations."""
    around = "message Ask {{}} message Tell {{}} message Other {{}} service Orders {{ {} }}"
    return case(rule, name, before=around.format(was), breaks=around.format(breaks), allows=around.format(allows), also=also)


_GET = "rpc Get(Ask) returns (Tell);"
_LEVEL = "rpc Get(Ask) returns (Tell) {{ option idempotency_level = {}; }}"

CASES = (
    changed("RPC_NO_DELETE", "removed", f"{_GET} rpc Put(Ask) returns (Tell);", _GET, f"rpc Put(Ask) returns (Tell); {_GET}"),
    changed("RPC_NO_DELETE", "renamed", _GET, "rpc Fetch(Ask) returns (Tell);", f"{_GET} rpc Fetch(Ask) returns (Tell);"),
    changed("RPC_NO_DELETE", "the last one removed", _GET, "", "rpc Get(Ask) returns (Tell) { option deprecated = true; }"),
    changed(
        "RPC_SAME_REQUEST_TYPE",
        "another request",
        _GET,
        "rpc Get(Other) returns (Tell);",
        f"{_GET} rpc GetOther(Other) returns (Tell);",
    ),
    changed(
        "RPC_SAME_RESPONSE_TYPE",
        "another response",
        _GET,
        "rpc Get(Ask) returns (Other);",
        f"{_GET} rpc GetOther(Ask) returns (Other);",
    ),
    changed(
        "RPC_SAME_REQUEST_TYPE",
        "request and response trade places",
        _GET,
        "rpc Get(Tell) returns (Ask);",
        "rpc Get(.PKG.Ask) returns (.PKG.Tell);",
        also=("RPC_SAME_RESPONSE_TYPE",),
    ),
    changed(
        "RPC_SAME_CLIENT_STREAMING",
        "takes a stream",
        _GET,
        "rpc Get(stream Ask) returns (Tell);",
        f"{_GET} rpc GetAll(stream Ask) returns (Tell);",
    ),
    changed(
        "RPC_SAME_CLIENT_STREAMING",
        "takes one message now",
        "rpc Get(stream Ask) returns (stream Tell);",
        "rpc Get(Ask) returns (stream Tell);",
        "rpc Get(stream Ask) returns (stream Tell); rpc One(Ask) returns (Tell);",
    ),
    changed(
        "RPC_SAME_SERVER_STREAMING",
        "answers with a stream",
        _GET,
        "rpc Get(Ask) returns (stream Tell);",
        f"{_GET} rpc Watch(Ask) returns (stream Tell);",
    ),
    changed(
        "RPC_SAME_SERVER_STREAMING",
        "answers with one message now",
        "rpc Get(Ask) returns (stream Tell);",
        _GET,
        "rpc Get(Ask) returns (stream Tell) { option deprecated = true; }",
    ),
    changed(
        "RPC_SAME_IDEMPOTENCY_LEVEL",
        "a query no more",
        _LEVEL.format("NO_SIDE_EFFECTS"),
        _GET,
        _LEVEL.format("NO_SIDE_EFFECTS") + " rpc Put(Ask) returns (Tell);",
    ),
    changed(
        "RPC_SAME_IDEMPOTENCY_LEVEL",
        "idempotent now",
        _GET,
        _LEVEL.format("IDEMPOTENT"),
        _LEVEL.format("IDEMPOTENCY_UNKNOWN"),
    ),
    changed(
        "RPC_SAME_IDEMPOTENCY_LEVEL",
        "idempotent to without side effects",
        _LEVEL.format("IDEMPOTENT"),
        _LEVEL.format("NO_SIDE_EFFECTS"),
        _LEVEL.format("IDEMPOTENT"),
    ),
)
