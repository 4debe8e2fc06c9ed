"""OpenAPI 3.1 of service contracts: how each operation is called over HTTP with JSON (https://spec.openapis.org/oas/v3.1.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from linkspan.contract import Contract
from linkspan.contracts.descriptors import services_of
from linkspan.contracts.json_schema import DIALECT, Schemas
from linkspan.contracts.openapi_routes import RoutePaths
from linkspan.errors import Code
from linkspan.operation import Command, Query

if TYPE_CHECKING:
    from collections.abc import Iterable

    from linkspan.operation import Operation, ServiceContract

__all__ = ["openapi"]

Given: TypeAlias = "Contract | type[ServiceContract]"

_ERROR: Final = {"$ref": "#/components/responses/Error"}
_BARE: Final = {  # the protocol asks for no body here
    "405": {"description": "The method is not one of this operation."},
    "415": {"description": "The content type is none of those listed."},
}
_ERROR_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "description": "What went wrong, the same on every path.",
    "required": ["code"],
    "properties": {
        "code": {"type": "string", "enum": [code.value for code in Code]},
        "message": {"type": "string"},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "value"],
                "properties": {
                    "type": {"type": "string", "description": "The full name of the message type."},
                    "value": {"type": "string", "contentEncoding": "base64", "description": "The message in protobuf's binary form."},
                    "debug": {"description": "The same as JSON, for people only."},
                },
            },
        },
    },
}
_HEADERS: Final[dict[str, dict[str, Any]]] = {
    "connect-timeout-ms": {
        "description": "The deadline: milliseconds until an answer is worthless.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 9_999_999_999},
    },
    "idempotency-key": {
        "description": "Names the request, however often it is made.",
        "schema": {"type": "string", "maxLength": 512},
    },
    "traceparent": {
        "description": "The trace that the call belongs to (W3C Trace Context).",
        "schema": {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
    },
    "connect-protocol-version": {"schema": {"type": "string", "enum": ["1"]}},
}
_GET_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": "message",
        "in": "query",
        "required": True,
        "description": "The request message in the encoding.",
        "schema": {"type": "string"},
    },
    {"name": "encoding", "in": "query", "required": True, "schema": {"type": "string", "enum": ["json", "proto"]}},
    {"name": "base64", "in": "query", "description": "1: the message is in URL-safe base64.", "schema": {"type": "string", "enum": ["1"]}},
    {"name": "compression", "in": "query", "schema": {"type": "string"}},
    {"name": "connect", "in": "query", "schema": {"type": "string", "enum": ["v1"]}},
]


def openapi(contracts: Iterable[Given], *, title: str = "", version: str = "", servers: Iterable[str] = ()) -> dict[str, Any]:
    """Return the OpenAPI document of contracts or service contracts.

    `title` defaults to the packages, `version` to the version at the end of the first (`v1`), `servers` are the URLs to call.
    """
    services = list(
        dict.fromkeys(service for given in contracts for service in (services_of(given) if isinstance(given, Contract) else (given,)))
    )
    document = _Document()
    for service in services:
        document.add(service)
    packages = list(dict.fromkeys(service.contract.package for service in services))
    last = packages[0].rpartition(".")[2] if packages else ""
    made: dict[str, Any] = {
        "openapi": "3.1.1",
        "info": {"title": title or ", ".join(packages) or "No services", "version": version or last or "v0"},
        "jsonSchemaDialect": DIALECT,
    }
    if urls := [{"url": url} for url in servers]:
        made["servers"] = urls
    made["tags"] = document.tags
    made["paths"] = document.paths
    made["components"] = document.components()
    return made


class _Document:
    """The parts of one document, as they come together."""

    def __init__(self) -> None:
        self.tags: list[dict[str, Any]] = []
        self.paths: dict[str, dict[str, Any]] = {}
        self.schemas = Schemas("#/components/schemas/")
        self._routes = RoutePaths(self.paths, self.schemas)

    def add(self, service: type[ServiceContract]) -> None:
        docs = service.contract.docs()
        tag: dict[str, Any] = {"name": service.full_name}
        if text := docs.get(service.__name__):
            tag["description"] = text
        self.tags.append(tag)
        for operation in service.operations:
            text = docs.get(f"{service.__name__}.{operation.name}", "")
            self._connect(operation, text)
            shared = {"tags": [operation.service_name], **_told(text), "responses": {"default": _ERROR}}
            self._routes.add(operation, shared, references(header_names(operation)))

    def components(self) -> dict[str, Any]:
        headers = {name: {"name": name, "in": "header", **header} for name, header in _HEADERS.items()}
        error = {"description": "An error.", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/connect.error"}}}}
        schemas = {**dict(sorted(self.schemas.defined.items())), "connect.error": _ERROR_SCHEMA}
        return {"schemas": schemas, "parameters": headers, "responses": {"Error": error}}

    def _connect(self, operation: Operation[Any, Any], text: str) -> None:
        """Add the Connect protocol's own paths (https://connectrpc.com/docs/protocol)."""
        unary = isinstance(operation, Query | Command)
        kinds = ("application/json", "application/proto") if unary else ("application/connect+json", "application/connect+proto")
        answer = {"description": "The answer.", "content": self._content(operation.response, kinds)}
        shared = {"tags": [operation.service_name], **_told(text), "responses": {"200": answer, **_BARE, "default": _ERROR}}
        body = {"required": True, "content": self._content(operation.request, kinds)}
        names = [*header_names(operation), "connect-protocol-version"]
        self.paths[operation.path] = {
            "post": {"operationId": operation.full_name, "parameters": references(names), "requestBody": body, **shared}
        }
        if isinstance(operation, Query):
            parameters = [*_GET_PARAMETERS, *references(header_names(operation))]
            self.paths[operation.path]["get"] = {"operationId": f"{operation.full_name}.get", "parameters": parameters, **shared}

    def _content(self, message: Any, kinds: tuple[str, ...]) -> dict[str, Any]:
        text, binary = kinds
        return {text: {"schema": self.schemas.reference(message.desc())}, binary: {}}


def header_names(operation: Operation[Any, Any]) -> list[str]:
    """Return the headers that every HTTP call of an operation may have."""
    key = ["idempotency-key"] if isinstance(operation, Command) else []
    return ["connect-timeout-ms", *key, "traceparent"]


def references(names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the parameters of headers, by reference."""
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _told(text: str) -> dict[str, str]:
    if not text:
        return {}
    return {"summary": text.partition("\n")[0], "description": text}
