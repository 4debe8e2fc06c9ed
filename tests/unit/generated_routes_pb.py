"""A proto-first module with google.api.http options, which stand in its descriptor as bytes that no class of ours has written.

package gen.routes.v1;
message GetOrderRequest { string order_id = 1; string name = 2; }
message Order { Order order = 1; string order_id = 2; }
service OrderService {
  rpc GetOrder(GetOrderRequest) returns (Order) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = {
      get: "/v1/orders/{order_id}" response_body: "order" additional_bindings { get: "/v1/{name=shops/*/orders/*}" }
    };
  }
  rpc GetBare(GetOrderRequest) returns (Order);
}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protobuf import Message
from protobuf._codegen import file_desc
from protobuf.wkt import FileDescriptorProto
from protobuf.wkt.google.protobuf.descriptor_pb import (
    DescriptorProto,
    FieldDescriptorProto,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)


class GetOrderRequest(Message[Any]):
    __slots__ = ("name", "order_id")

    if TYPE_CHECKING:

        def __init__(self, *, order_id: str = "", name: str = "") -> None: ...

        order_id: str
        name: str


class Order(Message[Any]):
    __slots__ = ("order", "order_id")

    if TYPE_CHECKING:

        def __init__(self, *, order: Order | None = None, order_id: str = "") -> None: ...

        order: Order | None
        order_id: str


def _field(name: str, number: int, json_name: str, type_name: str = "") -> FieldDescriptorProto:
    types = FieldDescriptorProto.Type
    built = FieldDescriptorProto(name=name, number=number, json_name=json_name, type_name=type_name or None)
    built.label, built.type = FieldDescriptorProto.Label.OPTIONAL, types.MESSAGE if type_name else types.STRING
    return built


def _sized(tag: bytes, content: bytes) -> bytes:
    return tag + bytes([len(content)]) + content


def _file() -> FileDescriptorProto:
    more = _sized(b"\x12", b"/v1/{name=shops/*/orders/*}")
    rule = _sized(b"\x12", b"/v1/orders/{order_id}") + _sized(b"\x5a", more) + _sized(b"\x62", b"order")
    options = b"\x90\x02\x01" + _sized(bytes.fromhex("82d3e49302"), rule)  # idempotency_level = 34, http = 72295728
    types = {"input_type": ".gen.routes.v1.GetOrderRequest", "output_type": ".gen.routes.v1.Order"}
    methods = [
        MethodDescriptorProto(name="GetOrder", options=MethodOptions.from_binary(options), **types),
        MethodDescriptorProto(name="GetBare", **types),
    ]
    return FileDescriptorProto(
        name="gen/routes/v1/routes.proto",
        package="gen.routes.v1",
        syntax="proto3",
        message_type=[
            DescriptorProto(name="GetOrderRequest", field=[_field("order_id", 1, "orderId"), _field("name", 2, "name")]),
            DescriptorProto(
                name="Order", field=[_field("order", 1, "order", ".gen.routes.v1.Order"), _field("order_id", 2, "orderId")]
            ),
        ],
        service=[ServiceDescriptorProto(name="OrderService", method=methods)],
    )


_DESC = file_desc(_file().to_binary(), [], {"GetOrderRequest": GetOrderRequest, "Order": Order})
