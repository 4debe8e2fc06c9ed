"""Rules and routes as Python declares them, found again in the exported options."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

from linkspan.contracts.compat import compare
from linkspan.contracts.descriptors import descriptor_set
from linkspan.contracts.snapshot import Snapshot
from tests.unit.declaring import declare


def broken(before: str, after: str) -> list[tuple[str, str, str]]:
    versions = [descriptor_set([declare(text, package="said.v1", module="said").contract]) for text in (before, after)]
    found = compare(*(Snapshot.of(FileDescriptorSet.from_binary(each.to_binary())) for each in versions))
    return [(finding.rule.id, finding.change.was, finding.change.now) for finding in found]


def test_narrower_field_rule_is_found() -> None:
    if find_spec("protovalidate") is None:
        pytest.skip("not run: needs protovalidate (pip install 'linkspan[protovalidate]')")
    order = "class Order(Message):\n    count: Int32 = field(1, gt=0{})\n    mail: str = field(2{})\n"
    assert broken(order.format("", ""), order.format(", lte=9", ", email=True")) == [
        ("FIELD_VALIDATION_NO_NARROW", "no int32.lte", "int32.lte = 9"),
        ("FIELD_VALIDATION_NO_NARROW", "no string.email", "string.email = True"),
    ]
    assert broken(order.format(", lte=9", ", email=True"), order.format(", lte=10", "")) == []


def test_route_that_is_served_no_more_is_found() -> None:
    orders = "class Get(Message):\n    id: str = field(1)\n"
    orders += 'class Orders(ServiceContract):\n    get = query(Get, Get, http="GET /v{}/orders/{{id}}")\n'
    assert broken(orders.format(1), orders.format(2)) == [("RPC_HTTP_ROUTE_NO_DELETE", "served at GET /v1/orders/{id}", "not served there")]
    assert broken(orders.format(1), orders.format(1)) == []
