"""What reflection says, asked by a grpcio client: files with their imports, by name, symbol and extension; both versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from protobuf import Oneof
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorProto, FileDescriptorSet

from linkspan.transport.reflection_pb import ExtensionRequest, ServerReflectionRequest, ServerReflectionResponse
from tests.unit.app_streams import numbers_service, streams_app

if TYPE_CHECKING:
    from pathlib import Path

FILE = "app/streams/v1/streams.proto"


async def asked(tmp_path: Path, *questions: tuple[str, Any], version: str = "v1") -> list[Any]:
    """Ask on one stream, and return the answers as `(field, value)`."""

    async def requests() -> Any:
        for field, value in questions:
            kept: Any = Oneof(field, value)
            yield ServerReflectionRequest(host="h", message_request=kept).to_binary()

    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    app = streams_app(tmp_path, numbers_service(), grpc="127.0.0.1:0")
    async with app, grpc.aio.insecure_channel(app.grpc_address.removeprefix("grpc://")) as channel:
        bodies = [body async for body in channel.stream_stream(path)(requests())]
    answers = [ServerReflectionResponse.from_binary(body) for body in bodies]
    assert [answer.valid_host for answer in answers] == ["h"] * len(questions)
    assert [getattr(answer.original_request.message_request, "field", None) for answer in answers] == [field for field, _ in questions]
    return [(answer.message_response.field, answer.message_response.value) for answer in answers if answer.message_response]


def files(answer: Any) -> dict[str, FileDescriptorProto]:
    field, value = answer
    assert field == "file_descriptor_response"
    found = [FileDescriptorProto.from_binary(each) for each in value.file_descriptor_proto]
    return {file.name: file for file in found}


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_files_come_with_all_that_they_import_and_can_be_linked(version: str, tmp_path: Path) -> None:
    (answer,) = await asked(tmp_path, ("file_containing_symbol", "app.streams.v1.Numbers"), version=version)
    found = files(answer)
    assert next(iter(found)) == FILE
    assert {name for file in found.values() for name in file.dependency} <= set(found)
    ordered: dict[str, FileDescriptorProto] = {}

    def add(name: str) -> None:
        for dependency in found[name].dependency:
            add(dependency)
        ordered.setdefault(name, found[name])

    add(FILE)
    linked = FileDescriptorSet(file=list(ordered.values())).to_registry()
    assert linked.message("app.streams.v1.Counted") is not None


async def test_symbols_of_every_kind_are_found(tmp_path: Path) -> None:
    symbols = ["app.streams.v1.Numbers.Count", "app.streams.v1.Number", ".app.streams.v1.Number.value"]
    answers = await asked(tmp_path, *(("file_containing_symbol", each) for each in symbols), ("file_by_filename", FILE))
    assert [next(iter(files(answer))) for answer in answers] == [FILE] * 4
    nested = await asked(tmp_path / "b", ("file_containing_symbol", "grpc.health.v1.HealthCheckResponse.ServingStatus"))
    assert next(iter(files(nested[0]))) == "grpc/health/v1/health.proto"


async def test_extensions_are_found_by_number(tmp_path: Path) -> None:
    kind = "google.protobuf.FieldOptions"
    numbers, file, none = await asked(
        tmp_path,
        ("all_extension_numbers_of_type", kind),
        ("file_containing_extension", ExtensionRequest(containing_type=kind, extension_number=81_520)),
        ("file_containing_extension", ExtensionRequest(containing_type=kind, extension_number=7)),
    )
    assert (numbers[0], 81_520 in numbers[1].extension_number) == ("all_extension_numbers_response", True)
    assert "linkspan/options.proto" in files(file)
    assert (none[0], none[1].error_code) == ("error_response", 5)


async def test_what_is_unknown_or_nothing_is_an_error_answer_and_the_stream_goes_on(tmp_path: Path) -> None:
    answers = await asked(
        tmp_path,
        ("file_containing_symbol", "app.streams.v1.Nothing"),
        ("file_by_filename", "nothing.proto"),
        ("all_extension_numbers_of_type", "app.streams.v1.Nothing"),
        ("list_services", ""),
    )
    assert [(field, value.error_code) for field, value in answers[:3]] == [("error_response", 5)] * 3
    assert [each.name for each in answers[3][1].service] == [
        "app.streams.v1.Numbers",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ]
