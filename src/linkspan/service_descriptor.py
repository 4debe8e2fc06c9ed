"""The descriptor of a service, as it stands in the exported contract: its methods with their options."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from protobuf.wkt.google.protobuf.descriptor_pb import MethodDescriptorProto, MethodOptions, ServiceDescriptorProto

from linkspan.http_rule import ANNOTATIONS_FILE, ext_http
from linkspan.message import type_name
from linkspan.options import OPTIONS_FILE, MethodRules, ext_method

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protobuf import DescFile, DescService

__all__ = ["describe_service", "generated_files", "generated_service"]


def describe_service(name: str, operations: Iterable[Any]) -> tuple[ServiceDescriptorProto, list[DescFile]]:
    """Return the descriptor of a service with these operations, and the files that it needs."""
    files: list[DescFile] = []
    proto = ServiceDescriptorProto(name=name)
    for operation in operations:
        reading = operation.kind == "query"
        options = MethodOptions(idempotency_level=MethodOptions.IdempotencyLevel.NO_SIDE_EFFECTS) if reading else MethodOptions()
        rules = operation.rules()
        if rules != MethodRules():
            options[ext_method] = rules
            files.append(OPTIONS_FILE)
        if operation.http is not None:
            options[ext_http] = operation.http.rule()
            files.append(ANNOTATIONS_FILE)
        method = MethodDescriptorProto(
            name=operation.rpc_name,
            input_type=f".{type_name(operation.request)}",
            output_type=f".{type_name(operation.response)}",
            options=options,
        )
        if operation.client_streaming:
            method.client_streaming = True
        if operation.server_streaming:
            method.server_streaming = True
        proto.method.append(method)
        files.extend((operation.request.desc().file, operation.response.desc().file))
    return proto, files


def generated_service(full_name: str, classes: Iterable[type[Any]], module: str) -> DescService | None:
    """Find the service of a proto-first contract: in the files of its messages, or in generated modules that its own module imports."""
    files = {cls.desc().file.name: cls.desc().file for cls in classes} | {file.name: file for file in generated_files(module)}
    return next((service for file in files.values() for service in file.services if service.type_name == full_name), None)


def generated_files(module: str) -> list[DescFile]:
    """Return the files whose generated modules a module imports whole, as in `from . import orders_pb`."""
    values = vars(sys.modules[module]).values()
    return [value.desc() for value in values if isinstance(value, ModuleType) and value.__name__.endswith("_pb")]
