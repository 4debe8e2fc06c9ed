"""What we export is what others read: Google's protobuf takes our descriptors and our bytes, and we take its."""

from __future__ import annotations

from typing import Any

import pytest

import tests.unit.test_message as shapes
import tests.unit.test_operation as services
from linkspan.options import OPTIONS_FILE
from tests.unit import generated_orders_pb


@pytest.fixture(scope="module")
def pool() -> Any:
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, timestamp_pb2
    except ImportError:
        pytest.skip("not run: needs Google's protobuf (pip install 'linkspan[bench]')")
    made = descriptor_pool.DescriptorPool()
    for module in (descriptor_pb2, timestamp_pb2, duration_pb2):
        made.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    generated = generated_orders_pb.OrderPlaced.desc().file.proto
    for file in (OPTIONS_FILE.proto, generated, shapes.contract.descriptor(), services.contract.descriptor()):
        made.AddSerializedFile(file.to_binary())
    return made


@shapes.each_example
def test_bytes_and_json_mean_the_same_on_both_sides(pool: Any, message: shapes.Message) -> None:
    from google.protobuf import json_format, message_factory

    ours = type(message)
    theirs = message_factory.GetMessageClass(pool.FindMessageTypeByName(ours.desc().type_name))
    same = theirs.FromString(message.to_binary())
    assert ours.from_binary(same.SerializeToString()) == message
    assert ours.from_json(json_format.MessageToJson(same)) == message
    assert json_format.Parse(message.to_json(), theirs()) == same


def test_service_is_read_with_its_streams(pool: Any) -> None:
    methods = pool.FindServiceByName("test.orders.v1.Orders").methods
    assert [(method.name, method.client_streaming, method.server_streaming) for method in methods] == [
        ("GetOrder", False, False),
        ("Watch", False, True),
        ("PlaceOrder", False, False),
        ("Cancel", False, False),
        ("Upload", True, False),
        ("SumUp", True, False),
        ("Chat", True, True),
        ("PlaceAndWatch", False, True),
    ]
