"""Server reflection for grpcurl, `buf curl` and the like: which services there are, and their files. v1, and v1alpha for old tools.

The two versions are the same messages under another package: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from protobuf import Oneof

from linkspan.contracts.descriptors import descriptor_set
from linkspan.operation import query, stream
from linkspan.transport.endpoint import StreamEndpoint
from linkspan.transport.reflection_pb import (
    ErrorResponse,
    ExtensionNumberResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence

    from protobuf import DescFile
    from protobuf.wkt.google.protobuf.descriptor_pb import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

    from linkspan.operation import BidiStream, ServiceContract
    from linkspan.transport.endpoint import Inbound

__all__ = ["Reflection"]

_NOT_FOUND: Final = 5  # as a gRPC status
_INVALID: Final = 3


def _operation(package: str) -> BidiStream[ServerReflectionRequest, ServerReflectionResponse]:
    found = query(stream(ServerReflectionRequest), stream(ServerReflectionResponse))
    found.bind(package, "ServerReflection", "server_reflection_info", "ServerReflectionInfo")
    return found


_VERSIONS: Final = tuple(_operation(f"grpc.reflection.{version}") for version in ("v1", "v1alpha"))


class Reflection:
    """Answers about service contracts, and about generated files whose services are served beside them."""

    def __init__(self, contracts: Iterable[type[ServiceContract]], files: Iterable[DescFile] = ()) -> None:
        self._contracts = tuple(dict.fromkeys(contracts))
        self._generated = (*files, ServerReflectionRequest.desc().file)
        self._files: dict[str, FileDescriptorProto] = {}
        self._symbols: dict[str, str] = {}
        self._extensions: dict[str, dict[int, str]] = {}

    def endpoints(self) -> list[StreamEndpoint]:
        """Return what a server serves."""
        return [StreamEndpoint(operation, self._answers) for operation in _VERSIONS]

    async def _answers(self, requests: AsyncIterator[ServerReflectionRequest], _inbound: Inbound) -> AsyncGenerator[Any, None]:
        if not self._files:  # descriptors are built for the first who asks: starting is not slowed down by them
            self._load()
        async for request in requests:
            yield ServerReflectionResponse(valid_host=request.host, original_request=request, message_response=self._answer(request))

    def _answer(self, request: ServerReflectionRequest) -> Any:
        asked: Any = request.message_request
        if asked is None:
            return _refused(_INVALID, "Nothing was asked: set one field of message_request.")
        match asked.field:
            case "list_services":
                return Oneof("list_services_response", ListServiceResponse(service=[ServiceResponse(name=n) for n in self._services()]))
            case "file_by_filename":
                return self._with_imports(asked.value if asked.value in self._files else "", asked.value)
            case "file_containing_symbol":
                return self._with_imports(self._symbols.get(asked.value.removeprefix("."), ""), asked.value)
            case "file_containing_extension":
                kind, number = asked.value.containing_type, asked.value.extension_number
                return self._with_imports(self._extensions.get(kind, {}).get(number, ""), f"{kind} [{number}]")
            case _:
                return self._numbers(asked.value)

    def _services(self) -> list[str]:
        generated = (service.type_name for file in self._generated for service in file.services)
        return sorted({contract.full_name for contract in self._contracts} | set(generated))

    def _numbers(self, kind: str) -> Any:
        if kind not in self._symbols:
            return _refused(_NOT_FOUND, f"Looking for '{kind}' failed: this server has no such type.")
        numbers = sorted(self._extensions.get(kind, {}))
        return Oneof("all_extension_numbers_response", ExtensionNumberResponse(base_type_name=kind, extension_number=numbers))

    def _with_imports(self, name: str, asked: str) -> Any:
        """Return the file and all that it imports, itself first: clients need not ask again."""
        if not name:
            return _refused(_NOT_FOUND, f"Looking for '{asked}' failed: this server has no such file or symbol.")
        found: dict[str, bytes] = {}
        queue = [name]
        while queue:
            each = queue.pop()
            if each not in found and each in self._files:
                found[each] = self._files[each].to_binary()
                queue.extend(self._files[each].dependency)
        return Oneof("file_descriptor_response", FileDescriptorResponse(file_descriptor_proto=list(found.values())))

    def _load(self) -> None:
        contracts = tuple(dict.fromkeys(contract.contract for contract in self._contracts))
        for file in descriptor_set(contracts).file:
            self._add(file)
        queue = list(self._generated)
        while queue:
            desc = queue.pop()
            self._add(desc.proto)
            queue.extend(desc.dependencies)

    def _add(self, file: FileDescriptorProto) -> None:
        if file.name in self._files:
            return
        self._files[file.name] = file
        for symbol in _symbols(file):
            self._symbols.setdefault(symbol, file.name)
        for extension in _extensions(file.extension, file.message_type):
            self._extensions.setdefault(extension.extendee.removeprefix("."), {})[extension.number] = file.name


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    """Yield what a file declares: services with their methods, and types with what is in them."""
    head = f"{file.package}." if file.package else ""
    for service in file.service:
        yield head + service.name
        yield from (f"{head}{service.name}.{method.name}" for method in service.method)
    for extension in file.extension:
        yield head + extension.name
    for enum in file.enum_type:
        yield head + enum.name
        yield from (head + value.name for value in enum.value)
    for message in file.message_type:
        yield from _members(head, message)


def _members(head: str, message: DescriptorProto) -> Iterator[str]:
    name = head + message.name
    yield name
    yield from (f"{name}.{field.name}" for field in (*message.field, *message.extension))
    yield from (f"{name}.{group.name}" for group in message.oneof_decl)
    for enum in message.enum_type:
        yield f"{name}.{enum.name}"
    for nested in message.nested_type:
        yield from _members(f"{name}.", nested)


def _extensions(own: Sequence[FieldDescriptorProto], messages: Sequence[DescriptorProto]) -> Iterator[FieldDescriptorProto]:
    yield from own
    for message in messages:
        yield from _extensions(message.extension, message.nested_type)


def _refused(code: int, text: str) -> Any:
    return Oneof("error_response", ErrorResponse(error_code=code, error_message=text))
