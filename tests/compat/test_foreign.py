"""Rules about options of others: resource routes and field validation, as `.proto` files declare them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import pytest
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

from linkspan.contracts.compat import compare
from linkspan.contracts.snapshot import Snapshot

ROUTE, VALID = "RPC_HTTP_ROUTE_NO_DELETE", "FIELD_VALIDATION_NO_NARROW"

# The parts of these files that we use, with their numbers.
IMPORTS = {
    "google/api/http.proto": """syntax = "proto3"; package google.api;
        message HttpRule { oneof pattern { string get = 2; string put = 3; string post = 4; string delete = 5;
          string patch = 6; Custom custom = 8; }
          string body = 7; repeated HttpRule additional_bindings = 11; }
        message Custom { string kind = 1; string path = 2; }""",
    "google/api/annotations.proto": """syntax = "proto3"; package google.api;
        import "google/api/http.proto"; import "google/protobuf/descriptor.proto";
        extend google.protobuf.MethodOptions { HttpRule http = 72295728; }""",
    "buf/validate/validate.proto": """syntax = "proto2"; package buf.validate;
        import "google/protobuf/descriptor.proto"; import "google/protobuf/duration.proto";
        enum Ignore { IGNORE_UNSPECIFIED = 0; IGNORE_IF_ZERO_VALUE = 1; IGNORE_ALWAYS = 3; }
        message Rule { optional string id = 1; optional string expression = 3; }
        message FieldRules { repeated Rule cel = 23; optional bool required = 25; optional Ignore ignore = 27;
          oneof type { Int64Rules int64 = 4; StringRules string = 14; RepeatedRules repeated = 18; DurationRules duration = 21; } }
        message Int64Rules { optional int64 const = 1; oneof less_than { int64 lt = 2; int64 lte = 3; }
          oneof greater_than { int64 gt = 4; int64 gte = 5; } repeated int64 in = 6; repeated int64 not_in = 7; }
        message StringRules { optional uint64 min_len = 2; optional uint64 max_len = 3;
          optional string pattern = 6; optional bool email = 12; }
        message RepeatedRules { optional uint64 min_items = 1; optional uint64 max_items = 2;
          optional bool unique = 3; optional FieldRules items = 4; }
        message DurationRules { oneof less_than { google.protobuf.Duration lt = 3; google.protobuf.Duration lte = 4; } }
        message MessageRules { repeated Rule cel = 3; }
        message OneofRules { optional bool required = 1; }
        extend google.protobuf.FieldOptions { optional FieldRules field = 1159; }
        extend google.protobuf.MessageOptions { optional MessageRules message = 1159; }
        extend google.protobuf.OneofOptions { optional OneofRules oneof = 1159; }""",
}
HEAD = """syntax = "proto3"; package case{}.v1;
import "google/api/annotations.proto"; import "buf/validate/validate.proto"; import "google/protobuf/duration.proto";
"""


@dataclass(frozen=True)
class Case:
    rule: str
    name: str
    before: str
    breaks: str
    allows: str


def route(name: str, before: str, breaks: str, allows: str) -> Case:
    around = "message Order {{ string id = 1; }} service Orders {{ rpc Get(Order) returns (Order) {{ {} }} }}"
    option = "option (google.api.http) = {{ {} }};"
    versions = [around.format(option.format(each) if each else "") for each in (before, breaks, allows)]
    return Case(ROUTE, name, *versions)


def valid(name: str, kind: str, before: str, breaks: str, allows: str) -> Case:
    versions = [f"message Order {{ {kind} x = 1 {f'[{each}]' if each else ''}; }}" for each in (before, breaks, allows)]
    return Case(VALID, name, *(each.replace("(f)", "(buf.validate.field)") for each in versions))


CASES = (
    route("removed", 'get: "/v1/orders/{id}"', "", 'get: "/v1/orders/{id}" additional_bindings { get: "/v1/o/{id}" }'),
    route(
        "another path",
        'get: "/v1/orders/{id}"',
        'get: "/v2/orders/{id}"',
        'get: "/v2/orders/{id}" additional_bindings { get: "/v1/orders/{id}" }',
    ),
    route("another verb", 'post: "/v1/orders" body: "*"', 'put: "/v1/orders" body: "*"', 'post: "/v1/orders"'),
    route(
        "an additional one removed",
        'get: "/a" additional_bindings { get: "/b" }',
        'get: "/a"',
        'get: "/b" additional_bindings { get: "/a" }',
    ),
    route(
        "its own verb",
        'custom: { kind: "COPY" path: "/a" }',
        'custom: { kind: "MOVE" path: "/a" }',
        'custom: { kind: "COPY" path: "/a" } body: "*"',
    ),
    route("a variable renamed", 'get: "/v1/{id=orders/*}"', 'get: "/v1/{id=boxes/*}"', 'get: "/v1/{name=orders/*}"'),
    valid("a bound given", "int64", "", "(f).int64.gt = 0", "(f).int64 = {}"),
    valid("a bound raised", "int64", "(f).int64.gte = 1", "(f).int64.gte = 2", "(f).int64.gt = 0"),
    valid("a bound that excludes itself", "int64", "(f).int64.gte = 1", "(f).int64.gt = 1", "(f).int64.gte = 0"),
    valid("a highest value lowered", "int64", "(f).int64.lt = 100", "(f).int64.lt = 99", "(f).int64.lte = 100"),
    valid("fewer values", "int64", "(f).int64 = { in: [1, 2] }", "(f).int64 = { in: [1] }", "(f).int64 = { in: [2, 1, 3] }"),
    valid("more refused", "int64", "(f).int64 = { not_in: [1, 2] }", "(f).int64 = { not_in: [1, 2, 3] }", "(f).int64 = { not_in: [2] }"),
    valid("one value only", "int64", "", "(f).int64.const = 1", ""),
    valid("longer text", "string", "(f).string.min_len = 1", "(f).string = { min_len: 2 }", ""),
    valid("shorter text", "string", "(f).string.max_len = 9", "(f).string.max_len = 8", "(f).string.max_len = 10"),
    valid("another pattern", "string", '(f).string.pattern = "a+"', '(f).string.pattern = "a*"', '(f).string.pattern = "a+"'),
    valid("a format", "string", "(f).string.email = false", "(f).string.email = true", ""),
    valid("required", "string", "", "(f).required = true", "(f).required = false"),
    valid(
        "no more ignored",
        "string",
        "(f).string.min_len = 1, (f).ignore = IGNORE_ALWAYS",
        "(f).string.min_len = 1",
        "(f).string.min_len = 9, (f).ignore = IGNORE_ALWAYS",
    ),
    valid(
        "its zero no more ignored",
        "string",
        "(f).string.min_len = 2, (f).ignore = IGNORE_IF_ZERO_VALUE",
        "(f).string.min_len = 2",
        "(f).ignore = IGNORE_ALWAYS",
    ),
    valid("an expression", "string", '(f).cel = { id: "a" expression: "true" }', '(f).cel = { id: "a" expression: "false" }', ""),
    valid(
        "fewer elements",
        "repeated string",
        "(f).repeated.max_items = 9",
        "(f).repeated.max_items = 8",
        "(f).repeated.min_items = 0, (f).repeated.max_items = 9",
    ),
    valid("its elements", "repeated string", "", "(f).repeated.items.string.min_len = 1", "(f).repeated.unique = false"),
    valid(
        "a shorter time",
        "google.protobuf.Duration",
        "(f).duration.lte = { seconds: 9 }",
        "(f).duration.lte = { seconds: 8 nanos: 5 }",
        "(f).duration.lte = { seconds: 10 }",
    ),
    Case(
        VALID,
        "a rule of a message",
        "message A { string x = 1; }",
        'message A { option (buf.validate.message).cel = { id: "a" expression: "true" }; string x = 1; }',
        "message A { string x = 1; string y = 2; }",
    ),
    Case(
        VALID,
        "a oneof required",
        "message A { oneof by { string x = 1; } }",
        "message A { oneof by { option (buf.validate.oneof).required = true; string x = 1; } }",
        "message A { oneof by { string x = 1; } oneof at { option (buf.validate.oneof).required = true; string y = 2; } }",
    ),
)


@pytest.fixture(scope="module")
def version(buf: str, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], Snapshot]:
    """Build all cases three times: as they were, broken, and as they may become."""
    found: dict[tuple[int, str], Snapshot] = {}
    for side in ("before", "breaks", "allows"):
        folder = tmp_path_factory.mktemp(side)
        files = IMPORTS | {f"case{number}.proto": HEAD.format(number) + getattr(case, side) for number, case in enumerate(CASES)}
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        subprocess.run([buf, "build", "-o", "all.binpb"], cwd=folder, check=True, timeout=100)
        whole = FileDescriptorSet.from_binary((folder / "all.binpb").read_bytes())
        for number in range(len(CASES)):
            own = [file for file in whole.file if file.name == f"case{number}.proto" or not file.name.startswith("case")]
            found[number, side] = Snapshot.of(FileDescriptorSet(file=own))
    return found


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{case.rule}: {case.name}" for case in CASES])
def test_change_breaks_the_rule_and_its_neighbour_does_not(number: int, version: dict[tuple[int, str], Snapshot]) -> None:
    before = version[number, "before"]
    assert {finding.rule.id for finding in compare(before, version[number, "breaks"])} == {CASES[number].rule}
    assert compare(before, version[number, "allows"]) == []
