"""Linkspan: declare an operation once, carry it by the right path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan.contract import Contract
from linkspan.errors import Code, Error, SetupError
from linkspan.message import (
    Duration,
    Enum,
    Event,
    Fixed32,
    Fixed64,
    Float32,
    Int32,
    Message,
    Oneof,
    SFixed32,
    SFixed64,
    SInt32,
    SInt64,
    Timestamp,
    UInt32,
    UInt64,
    field,
    mapping,
    oneof,
    repeated,
)
from linkspan.operation import (
    BidiStream,
    ClientStream,
    Command,
    EventType,
    Query,
    ServerStream,
    ServiceContract,
    command,
    event,
    query,
    stream,
)
from linkspan.routes import Http

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.batch import Batches
    from linkspan.claimcheck import Blobs
    from linkspan.client import Client
    from linkspan.context import Context
    from linkspan.handler import Handler, Middleware
    from linkspan.identity import Identity
    from linkspan.incoming.breaker import Breaker
    from linkspan.limits import Limits
    from linkspan.ports import BlobPlace
    from linkspan.service import Service
    from linkspan.transport.tls import Tls
    from linkspan.transport.web import Web

__all__ = [
    "App",
    "Batches",
    "BidiStream",
    "BlobPlace",
    "Blobs",
    "Breaker",
    "Client",
    "ClientStream",
    "Code",
    "Command",
    "Context",
    "Contract",
    "Duration",
    "Enum",
    "Error",
    "Event",
    "EventType",
    "Fixed32",
    "Fixed64",
    "Float32",
    "Handler",
    "Http",
    "Identity",
    "Int32",
    "Limits",
    "Message",
    "Middleware",
    "Oneof",
    "Query",
    "SFixed32",
    "SFixed64",
    "SInt32",
    "SInt64",
    "ServerStream",
    "Service",
    "ServiceContract",
    "SetupError",
    "Timestamp",
    "Tls",
    "UInt32",
    "UInt64",
    "Web",
    "command",
    "event",
    "field",
    "mapping",
    "oneof",
    "query",
    "repeated",
    "stream",
]

_LAZY = {
    "App": "app",
    "Batches": "batch",
    "BlobPlace": "ports",
    "Blobs": "claimcheck",
    "Breaker": "incoming.breaker",
    "Client": "client",
    "Context": "context",
    "Handler": "handler",
    "Identity": "identity",
    "Limits": "limits",
    "Middleware": "handler",
    "Service": "service",
    "Tls": "transport.tls",
    "Web": "transport.web",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Load the running parts at their first use: a contract module needs none of them."""
        if name not in _LAZY:
            raise AttributeError(f"module 'linkspan' has no attribute '{name}'")
        from importlib import import_module  # noqa: PLC0415 - as above

        value = getattr(import_module(f"linkspan.{_LAZY[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
