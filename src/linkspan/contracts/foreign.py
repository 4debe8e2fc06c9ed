"""Options of others on our elements, `google.api.http` and `buf.validate`, read by the descriptors that travel in the same set."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from protobuf.wkt.google.protobuf.descriptor_pb import MethodDescriptorProto

    from linkspan.contracts.snapshot import Snapshot

__all__ = ["address", "option", "routes"]

_VERBS: Final = ("get", "put", "post", "delete", "patch")


def option(proto: Any, name: str, version: Snapshot) -> dict[str, Any]:
    """Return an option by its full name as JSON would show it, empty where it is absent or its declaration is not in the set."""
    if proto.options is None or name.rpartition(".")[0] not in version.imported:
        return {}
    declared: Any = version.registry.extension(name)
    if declared is None or declared.type not in proto.options:
        return {}
    return cast("dict[str, Any]", json.loads(proto.options[declared.type].to_json(registry=version.registry)))


def routes(method: MethodDescriptorProto, version: Snapshot) -> list[str]:
    """Return the resource routes of an operation, as in 'GET /v1/orders/{order_id}'."""
    rule = option(method, "google.api.http", version)
    found: list[str] = []
    for binding in (rule, *rule.get("additionalBindings", ())):
        found += [f"{verb.upper()} {binding[verb]}" for verb in _VERBS if binding.get(verb)]
        if "custom" in binding:
            found.append(f"{binding['custom'].get('kind', '*')} {binding['custom'].get('path', '')}")
    return found


def address(route: str) -> str:
    """Return what of a route its callers see: names of path variables are the server's own."""
    return re.sub(r"\{[^}=]+(?:=([^}]*))?\}", lambda found: found[1] or "*", route)
