"""The AsyncAPI document: which topics there are, who sends and who takes, and what a message looks like."""

from __future__ import annotations

from typing import Any

from linkspan.cli.contract_target import load_contracts, members_of_app
from linkspan.contracts.asyncapi import Member, asyncapi
from linkspan.contracts.payload_proto import payload_proto
from linkspan.message import type_name
from linkspan.outgoing.sender import command_topic, event_topic
from tests.unit.declaring import declare

DECLARED = """
class Address(Message):
    city: str = field(1, pii=True)
class Ship(Message):
    order_id: str = field(1, key=True)
    to: Address | None = field(2, default=None)
class Shipped(Event):
    order_id: str = field(1, key=True)
    mail: str = field(2, pii=True)
class Ping(Message):
    x: str = field(1)
class Shipping(ServiceContract):
    ship = command(Ship, Ping, answer="later", expires=60)
    stop = command(Ship, Ping, answer="now")
    ping = query(Ping, Ping)
    poke = command(Ping, Ping)
"""


def document(module: Any) -> dict[str, Any]:
    return asyncapi([module.contract])


def test_topics_have_the_names_and_subjects_that_travel() -> None:
    module = declare(DECLARED, package="async.ship.v1")
    made = document(module)
    assert set(made["channels"]) == {event_topic("async.ship.v1"), command_topic("async.ship.v1")}
    events = made["channels"]["async.ship.v1.events"]
    assert events["address"] == "async.ship.v1.events.{lane}.{type}"
    assert events["parameters"]["type"]["enum"] == ["Shipped"]
    assert made["channels"]["async.ship.v1.commands"]["parameters"]["type"]["enum"] == ["Shipping.Ship"]


def test_contract_alone_tells_its_own_side() -> None:
    operations = document(declare(DECLARED, package="async.alone.v1"))["operations"]
    assert {name: each["action"] for name, each in operations.items()} == {
        "async.alone.v1.send.async.alone.v1.events": "send",
        "async.alone.v1.Shipping.receive.async.alone.v1.commands": "receive",
    }


def test_app_tells_who_sends_and_who_takes() -> None:
    contracts, app = load_contracts("examples.shop.app:app")
    assert app is not None
    operations = asyncapi(contracts, members_of_app(app))["operations"]
    assert {name for name in operations if ".shop.orders.v1.events" in name} == {
        "orders.send.shop.orders.v1.events",
        *(f"{each.name}.receive.shop.orders.v1.events" for each in app.services if any("shop.orders.v1" in name for name in each.events)),
    }
    taken = operations["payments.receive.shop.payments.v1.commands"]
    assert taken["bindings"]["nats"]["queue"] == "payments"
    assert {each["$ref"].rpartition("/")[2] for each in taken["messages"]} == {
        "shop.payments.v1.Payments.Charge",
        "shop.payments.v1.Payments.Charge.json",
        "shop.payments.v1.Payments.PayBack",
        "shop.payments.v1.Payments.PayBack.json",
    }


def test_topic_in_batches_tells_that_they_come() -> None:
    module = declare(DECLARED, package="async.many.v1")
    topic = event_topic("async.many.v1")
    made = asyncapi([module.contract], [Member("ships", publishes=(module.Shipped,), batches=(topic, "other.v1.events"))])

    assert made["channels"][topic]["parameters"]["type"]["enum"] == ["Shipped", "batch"]
    assert made["components"]["messages"]["linkspan.batch.v1"]["contentType"] == "application/vnd.linkspan.batch+zstd"
    sent = [each["$ref"].rpartition("/")[2] for each in made["operations"][f"ships.send.{topic}"]["messages"]]
    assert sent == ["async.many.v1.Shipped", "linkspan.batch.v1"]


def test_message_tells_key_personal_parts_headers_and_expiry() -> None:
    messages = document(declare(DECLARED, package="async.parts.v1"))["components"]["messages"]
    shipped, ship = messages["async.parts.v1.Shipped"], messages["async.parts.v1.Shipping.Ship"]
    assert (shipped["x-linkspan-key"], shipped["x-linkspan-pii"], ship["x-linkspan-expires"]) == ("order_id", ["mail"], 60)
    assert shipped["headers"]["allOf"][1]["properties"] == {
        "ce-type": {"const": "async.parts.v1.Shipped"},
        "ce-datacontenttype": {"const": "application/protobuf"},
    }
    assert messages["async.parts.v1.Shipping.Ship.json"]["payload"] == {"$ref": "#/components/schemas/async.parts.v1.Ship"}


def test_headers_are_those_that_are_sent() -> None:
    from linkspan.envelope import Envelope, headers_of, prefix, render

    made = document(declare(DECLARED, package="async.headers.v1"))
    known = set(made["components"]["schemas"]["cloudevents.headers"]["properties"])
    block = render(prefix("t", "/s"), Envelope("1", "/s", "t", "k", "00-1", "now", "c", "d", "later", 1)).decode()
    assert known == {*headers_of(block), "ce-sequence"}


def test_payload_stands_alone() -> None:
    declare(
        "class Tone(Enum):\n UNSPECIFIED = 0\nclass Line(Message):\n tone: Tone = field(1)\n next: Line | None = field(2, default=None)",
        package="async.lines.v1",
        module="async_lines",
        postponed=True,
    )
    module = declare(
        """
import async_lines
class Tone(Message):
    class Line(Message):
        x: str = field(1, pii=True)
    first: Line | None = field(1, default=None)
class Placed(Event):
    id: str = field(1, key=True)
    lines: dict[str, async_lines.Line] = mapping(2)
    tone: Tone | None = field(3, default=None)
    at: Timestamp | None = field(4, default=None)
    unused_elsewhere: Oneof[Literal["a"], str] | None = oneof(a=9)
class Other(Message):
    x: str = field(1)
""",
        package="async.alone.v2",
    )
    printed = payload_proto(module.Placed.desc(), {type_name(module.Placed): "Said."})
    assert printed == (
        'syntax = "proto3";\n\npackage async.alone.v2;\n\nimport "google/protobuf/timestamp.proto";\n\n'
        "// Said.\n// @RootNode\nmessage Placed {\n  string id = 1;\n  map<string, Line> lines = 2;\n  Tone tone = 3;\n"
        "  google.protobuf.Timestamp at = 4;\n  oneof unused_elsewhere {\n    string a = 9;\n  }\n}\n\n"
        "message Line {\n  async_lines_v1_Tone tone = 1;\n  Line next = 2;\n}\n\n"
        "message Tone {\n  Line first = 1;\n\n  message Line {\n    string x = 1;\n  }\n}\n\n"
        "enum async_lines_v1_Tone {\n  TONE_UNSPECIFIED = 0;\n}\n"
    )
