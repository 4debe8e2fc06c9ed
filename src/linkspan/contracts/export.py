"""Write contracts in the forms that others read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from linkspan.contracts.asyncapi import asyncapi as asyncapi_document
from linkspan.contracts.buf_yaml import buf_yaml
from linkspan.contracts.comments import comments
from linkspan.contracts.descriptors import descriptor_set, files_of, own_files, with_imports
from linkspan.contracts.json_schema import json_schema as message_schema
from linkspan.contracts.known_files import OPTIONS_COMMENTS
from linkspan.contracts.openapi import openapi as openapi_document
from linkspan.contracts.proto_text import ProtoText
from linkspan.errors import SetupError
from linkspan.options import OPTIONS_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from linkspan.contract import Contract
    from linkspan.contracts.asyncapi import Member

__all__ = ["BESIDE", "FORMATS", "exported"]

BESIDE: Final = ("buf.yaml", OPTIONS_FILE.name)
"""Files that are the same for many contracts."""


def proto(contracts: Sequence[Contract]) -> dict[str, str | bytes]:
    """Return `.proto` files of contracts and of all that they import, Google's own left out, and a `buf.yaml`."""
    files = descriptor_set(contracts)
    owners = {file.name: contract for contract in with_imports(contracts) for file in own_files(contract)}
    texts = {name: text for contract in owners.values() for name, text in comments(contract.module).items()}
    printer = ProtoText(files, texts | OPTIONS_COMMENTS)
    written = [file for file in files.file if not file.name.startswith("google/protobuf/")]
    found: dict[str, str | bytes] = {"buf.yaml": buf_yaml(written)}
    for file in written:
        owner = owners.get(file.name)
        head = f"Written by `linkspan contracts export` from the Python module {owner.module}: change it there." if owner else ""
        found[file.name] = printer.file(file.name, head)
    return found


def descriptors(contracts: Sequence[Contract]) -> dict[str, str | bytes]:
    """Return one file with all descriptors, for `buf`, `grpcurl` and others that read a FileDescriptorSet."""
    return {"descriptors.binpb": descriptor_set(contracts).to_binary()}


def openapi(contracts: Sequence[Contract]) -> dict[str, str | bytes]:
    """Return one OpenAPI document of all operations."""
    return {"openapi.json": _json(openapi_document(contracts))}


def json_schema(contracts: Sequence[Contract]) -> dict[str, str | bytes]:
    """Return a JSON Schema for each message that is not nested in another."""
    messages = [message for contract in contracts for file in files_of(contract) for message in file.messages]
    return {f"json-schema/{message.type_name}.json": _json(message_schema(message.type)) for message in messages}


def _json(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


FORMATS: Final[Mapping[str, Callable[[Sequence[Contract]], dict[str, str | bytes]]]] = {
    "proto": proto,
    "openapi": openapi,
    "json-schema": json_schema,
    "descriptors": descriptors,
}
ASYNCAPI: Final = "asyncapi"


def exported(contracts: Sequence[Contract], formats: Iterable[str], members: Sequence[Member] | None = None) -> dict[str, str | bytes]:
    """Return the files of some formats by their path in the folder of exports.

    `members` are the services of an app, for AsyncAPI.

    Raises:
        SetupError: A format is unknown.
    """
    found: dict[str, str | bytes] = {}
    for name in formats:
        if name == ASYNCAPI:
            found["asyncapi.json"] = _json(asyncapi_document(contracts, members))
        elif name in FORMATS:
            found |= FORMATS[name](contracts)
        else:
            raise SetupError(f"There is no format '{name}': take some of {', '.join((*FORMATS, ASYNCAPI))}.")
    return found
