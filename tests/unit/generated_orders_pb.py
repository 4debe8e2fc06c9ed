"""A proto-first module, shaped as Buf's protoc-gen-py prints it, with our options on its fields.

package gen.orders.v1;
message GetOrderRequest { string order_id = 1; optional string note = 2; }
message OrderPlaced {
  option (linkspan.message).event = true;
  string order_id = 1 [(linkspan.field).key = true];
  string mail = 2 [(linkspan.field).pii = true];
}
service OrderService {
  rpc GetOrder(GetOrderRequest) returns (OrderPlaced) { option idempotency_level = NO_SIDE_EFFECTS; }
  rpc WatchURL(GetOrderRequest) returns (stream OrderPlaced);
  rpc PlaceOrder(GetOrderRequest) returns (OrderPlaced);
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
    FieldOptions,
    MessageOptions,
    MethodDescriptorProto,
    MethodOptions,
    OneofDescriptorProto,
    ServiceDescriptorProto,
)

from linkspan.options import OPTIONS_FILE, FieldRules, MessageRules, ext_field, ext_message


class GetOrderRequest(Message[Any]):
    __slots__ = ("note", "order_id")

    if TYPE_CHECKING:

        def __init__(self, *, order_id: str = "", note: str | None = None) -> None: ...

        order_id: str
        note: str


class OrderPlaced(Message[Any]):
    __slots__ = ("mail", "order_id")

    if TYPE_CHECKING:

        def __init__(self, *, order_id: str = "", mail: str = "") -> None: ...

        order_id: str
        mail: str


def _string(name: str, number: int, json_name: str, rules: FieldRules | None = None) -> FieldDescriptorProto:
    built = FieldDescriptorProto(name=name, number=number, json_name=json_name)
    built.label, built.type = FieldDescriptorProto.Label.OPTIONAL, FieldDescriptorProto.Type.STRING
    if rules is not None:
        built.options = FieldOptions()
        built.options[ext_field] = rules
    return built


def _method(name: str, options: MethodOptions | None = None, *, stream: bool = False) -> MethodDescriptorProto:
    types = {"input_type": ".gen.orders.v1.GetOrderRequest", "output_type": ".gen.orders.v1.OrderPlaced"}
    return MethodDescriptorProto(name=name, server_streaming=stream or None, options=options, **types)


def _file() -> FileDescriptorProto:
    note = _string("note", 2, "note")
    note.proto3_optional, note.oneof_index = True, 0
    fields = [_string("order_id", 1, "orderId"), note]
    request = DescriptorProto(name="GetOrderRequest", field=fields, oneof_decl=[OneofDescriptorProto(name="_note")])
    marked = [_string("order_id", 1, "orderId", FieldRules(key=True)), _string("mail", 2, "mail", FieldRules(pii=True))]
    placed = DescriptorProto(name="OrderPlaced", field=marked, options=MessageOptions())
    assert placed.options is not None
    placed.options[ext_message] = MessageRules(event=True)
    reading = MethodOptions(idempotency_level=MethodOptions.IdempotencyLevel.NO_SIDE_EFFECTS)
    methods = [_method("GetOrder", reading), _method("WatchURL", stream=True), _method("PlaceOrder")]
    return FileDescriptorProto(
        name="gen/orders/v1/orders.proto",
        package="gen.orders.v1",
        syntax="proto3",
        dependency=["linkspan/options.proto"],
        message_type=[request, placed],
        service=[ServiceDescriptorProto(name="OrderService", method=methods)],
    )


_DESC = file_desc(_file().to_binary(), [OPTIONS_FILE], {"GetOrderRequest": GetOrderRequest, "OrderPlaced": OrderPlaced})
