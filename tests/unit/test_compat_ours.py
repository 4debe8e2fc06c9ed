"""Our own rules: each with a change that breaks it, and a neighbouring one that does not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

from linkspan.contracts.compat import RULES, compare
from linkspan.contracts.snapshot import Snapshot
from tests.unit.compat_versions import found, versions

OURS = {rule.id: rule for rule in RULES if rule.group == "linkspan"}


@dataclass(frozen=True)
class Case:
    """Bodies of contract modules."""

    rule: str
    before: str
    breaks: str
    allows: str


def placed(options: str = "", *, verb: str = "command") -> str:
    return f"""
class Place(Message):
    id: str = field(1, key=True)
class Placed(Message):
    id: str = field(1)
class Orders(ServiceContract):
    place = {verb}(Place, Placed{options})
"""


def event(*fields: str, kind: str = "Event") -> str:
    return "\n    ".join((f"class Placed({kind}):", *fields))


ID, NOTE = "id: str = field(1, key=True)", "note: str = field(2)"

CASES = (
    Case(
        "MESSAGE_SAME_ORDER_KEY",
        event(ID, NOTE),
        event("id: str = field(1)", "note: str = field(2, key=True)"),
        event(ID, NOTE, "more: str = field(3)"),
    ),
    Case(
        "MESSAGE_SAME_ORDER_KEY",
        event(ID, kind="Message"),
        event("id: str = field(1)", kind="Message"),
        event(ID, NOTE, kind="Message"),
    ),
    Case(
        "MESSAGE_SAME_ORDER_KEY",
        "class A(Message):\n    x: Int32 = field(1, key=True)\n\nclass B(Message):\n    x: Int32 = field(1)",
        "class A(Message):\n    x: Int32 = field(1)\n\nclass B(Message):\n    x: Int32 = field(1)",
        "class A(Message):\n    x: Int32 = field(1, key=True)\n\nclass B(Message):\n    x: Int32 = field(1, key=True)",
    ),
    Case(
        "FIELD_PII_NO_DELETE",
        event(ID, "mail: str = field(2, pii=True)"),
        event(ID, "mail: str = field(2)"),
        event(ID, "mail: str = field(2, pii=True)"),
    ),
    Case(
        "FIELD_PII_NO_DELETE",
        event("id: str = field(1, key=True, pii=True)", NOTE),
        event(ID, "note: str = field(2, pii=True)"),
        event("id: str = field(1, key=True, pii=True)", "note: str = field(2, pii=True)"),
    ),
    Case("MESSAGE_SAME_EVENT", event(ID), event(ID, kind="Message"), event(ID, NOTE)),
    Case("MESSAGE_SAME_EVENT", event(ID, kind="Message"), event(ID), event(ID, NOTE, kind="Message")),
    Case("RPC_SAME_KIND", placed(), placed(verb="query"), placed(", answer='either'")),
    Case("RPC_SAME_KIND", placed(verb="query"), placed(), placed(", staleness=3.0", verb="query")),
    Case("RPC_ANSWER_NO_NARROW", placed(), placed(", answer='now'"), placed(", answer='either'")),
    Case("RPC_ANSWER_NO_NARROW", placed(", answer='now'"), placed(", answer='later'"), placed()),
    Case("RPC_ANSWER_NO_NARROW", placed(", answer='later'"), placed(", answer='now'"), placed(", answer='either'")),
    Case("RPC_EXPIRY_NO_SHORTEN", placed(", expires=60.0"), placed(", expires=59.0"), placed(", expires=61.0")),
    Case("RPC_EXPIRY_NO_SHORTEN", placed(), placed(", expires=3600.0"), placed()),
    Case("RPC_EXPIRY_NO_SHORTEN", placed(", expires=60.0"), placed(", expires=0.5"), placed()),
)


@pytest.mark.parametrize("case", CASES, ids=[f"{case.rule}-{number}" for number, case in enumerate(CASES)])
def test_change_breaks_the_rule_and_its_neighbour_does_not(case: Case) -> None:
    mine = list(OURS.values())
    assert {finding.rule.id for finding in found(case.before, case.breaks, rules=mine)} == {case.rule}
    assert found(case.before, case.allows) == []


def test_every_rule_of_ours_has_its_cases() -> None:
    elsewhere = {"EVENT_SAME_PACKAGE", "EVENT_SAME_OWNER", "RPC_HTTP_ROUTE_NO_DELETE", "FIELD_VALIDATION_NO_NARROW"}
    assert {case.rule for case in CASES} | elsewhere == set(OURS)


def test_package_with_events_keeps_its_owner() -> None:
    (finding,) = found(event(ID), event(ID), owners=("orders", "mail"))
    assert finding.rule.id == "EVENT_SAME_OWNER"
    assert (finding.change.was, finding.change.now) == ("owned by 'orders'", "owned by 'mail'")
    assert [each.rule.id for each in found(event(ID), event(ID), owners=("orders", ""))] == ["EVENT_SAME_OWNER"]
    assert found(event(ID), event(ID), owners=("orders", "orders")) == []
    assert found(event(ID), event(ID), owners=("", "orders")) == []
    assert found(event(ID, kind="Message"), event(ID, kind="Message"), owners=("orders", "mail")) == []


def test_event_that_moves_to_another_package_leaves_its_topic() -> None:
    ((before, after), (other, newer)) = (versions("", "", package="moved.a.v1"), versions("", "", package="moved.b.v1"))
    old, new = versions(event(ID), "class Rest(Message):\n    id: str = field(1)", package="moved.a.v1")
    here = versions(event(ID), package="moved.b.v1")[0]
    moved = [finding for finding in compare(both(old, other), both(new, here)) if finding.rule.id == "EVENT_SAME_PACKAGE"]
    assert [(each.change.was, each.change.now) for each in moved] == [("in topic 'moved.a.v1.events'", "in topic 'moved.b.v1.events'")]
    assert compare(both(old, other), both(old, here)) == []
    assert compare(both(before, other), both(after, newer)) == []


def both(one: Snapshot, other: Snapshot) -> Snapshot:
    return Snapshot.of(FileDescriptorSet(file=[*one.source.file, *other.source.file]))


def test_warning_is_no_error() -> None:
    (finding,) = found(placed(), placed(", expires=3600.0"))
    assert finding.rule.level == "warning"
    assert finding.sentence == f"{finding.change.where} was carried out however late, is carried out within 3600 s"
