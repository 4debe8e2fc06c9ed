"""Messages and paths of the gRPC side: real upb classes, from a descriptor built here (no protoc needed)."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_FILE = descriptor_pb2.FileDescriptorProto(name="benchmarks/peers/orders.proto", package="bench.orders.v1", syntax="proto3")

for _name, _fields in {
    "GetOrder": (("order_id", _FIELD.TYPE_STRING), ("note", _FIELD.TYPE_STRING), ("detailed", _FIELD.TYPE_BOOL)),
    "Order": (("order_id", _FIELD.TYPE_STRING), ("note", _FIELD.TYPE_STRING), ("cents", _FIELD.TYPE_INT64)),
}.items():
    _message = _FILE.message_type.add(name=_name)
    for _number, (_field, _type) in enumerate(_fields, start=1):
        _message.field.add(name=_field, number=_number, type=_type, label=_FIELD.LABEL_OPTIONAL)

_pool = descriptor_pool.DescriptorPool()
_pool.Add(_FILE)

GetOrder = message_factory.GetMessageClass(_pool.FindMessageTypeByName("bench.orders.v1.GetOrder"))
Order = message_factory.GetMessageClass(_pool.FindMessageTypeByName("bench.orders.v1.Order"))
SERVICE = "bench.orders.v1.Orders"
METHOD = "GetOrder"
