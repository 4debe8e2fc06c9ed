"""`linkspan describe`: what an app declares, without starting it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from linkspan.message import traits_of, type_name
from linkspan.operation import Command
from linkspan.outgoing.sender import command_topic, event_topic
from linkspan.stores import without_password

if TYPE_CHECKING:
    from linkspan.app import App
    from linkspan.limits import Limits
    from linkspan.operation import Operation
    from linkspan.service import Service

__all__ = ["described", "lines"]


def described(app: App) -> dict[str, Any]:
    """Return the app as plain values."""
    return {**app.settings(), "services": [_service(app, service) for service in app.services]}


def _service(app: App, service: Service) -> dict[str, Any]:
    operations: list[dict[str, Any]] = [
        {**_operation(each.operation), "limits": _plain(each.limits)} for each in service.operations.values() if each.operation is not None
    ]
    reacts: list[dict[str, Any]] = [
        {
            "name": each.name,
            "key": _key(each.request),
            "once": each.once,
            "topic": event_topic(each.package),
            "limits": _plain(each.limits),
        }
        for each in service.events.values()
    ]
    taken: set[str] = {line["topic"] for line in (*operations, *reacts) if line["topic"]}
    return {
        "service": service.name,
        "store": without_password(app.store_url(service)),
        "contracts": [contract.full_name for contract in service.contracts],
        "operations": operations,
        "reacts_to": reacts,
        "publishes": _published(service),
        "topics": {"takes": sorted(taken), "publishes": sorted({event_topic(each.contract.package) for each in service.contracts})},
        "migrations": [name for name, _ in service.scripts()],
        "middleware": [getattr(layer, "__name__", type(layer).__name__) for layer in service.middleware],
        "limits": _plain(service.limits),
        "breaker": None if service.breaker is None else asdict(service.breaker),
        "prefetch": service.prefetch,
        "retention": service.retention,
    }


def _plain(limits: Limits | None) -> dict[str, Any] | None:
    """Return limits as plain values; None where the service's hold."""
    if limits is None:
        return None
    kinds = {name: [each.__name__ for each in getattr(limits, name)] for name in ("transient", "terminal")}
    return {**asdict(limits), **kinds}


def _operation(operation: Operation[Any, Any]) -> dict[str, Any]:
    key = _key(operation.request)
    durable = isinstance(operation, Command) and bool(key)
    return {
        "kind": operation.kind,
        "name": operation.full_name,
        "path": operation.path,
        "request": operation.request.__name__,
        "response": operation.response.__name__,
        "key": key,
        "paths": ["direct", "durable"] if durable else ["direct"],
        "topic": command_topic(operation.package) if isinstance(operation, Command) else "",
    }


def _published(service: Service) -> list[str]:
    """Return the events of the packages that a service implements: those are its own to publish."""
    names: set[str] = set()
    for contract in service.contracts:
        names.update(type_name(event) for event in contract.contract.events)
        names.update(event.full_name for event in contract.events)
    return sorted(names)


def _key(message: Any) -> str:
    return traits_of(message).key or ""


def lines(app: dict[str, Any]) -> list[str]:
    """Return the same for people."""
    found = [f"broker {app['broker']}, direct path at {app['http']}, data in {app['data']}"]
    found += [f"gRPC at {app['grpc']}"] if app["grpc"] else []
    found += [f"probes at {app['probes']}"] if app["probes"] else []
    found += [f"calls to {name} go to {address}" for name, address in app["addresses"].items()]
    for service in app["services"]:
        found += ["", f"{service['service']}  (store {service['store']})"]
        for each in service["operations"]:
            key = f"  key {each['key']}" if each["key"] else ""
            found.append(f"  {each['kind']:<8} {each['path']}  {each['request']} -> {each['response']}{key}  {', '.join(each['paths'])}")
            found += _own(each)
        for each in service["reacts_to"]:
            key = f"  key {each['key']}" if each["key"] else ""
            found.append(f"  reacts   {each['name']}{key}  {'once' if each['once'] else 'at least once'}")
            found += _own(each)
        found += [f"  event    {name}" for name in service["publishes"]]
        found += [f"  takes    {topic}" for topic in service["topics"]["takes"]]
        found.append(f"  limits   {_limits(service['limits'])}")
        found.append(f"  prefetch {service['prefetch'] or 'half a second of work'}")
        found.append(f"  breaker  {_breaker(service['breaker'])}")
        found.append(f"  inbox    remembers for {service['retention'] / 86_400:g} days")
    return found


def _own(handled: dict[str, Any]) -> list[str]:
    return [f"           {_limits(handled['limits'])}"] if handled["limits"] else []


def _breaker(breaker: dict[str, Any] | None) -> str:
    if breaker is None:
        return "none"
    opens = f"opens at {breaker['failures']} failures in {breaker['window']:g} s, at least {breaker['share']:.0%} of all"
    return f"{opens}; then one message at a time, every {breaker['pause']:g} to {breaker['longest']:g} s"


def _limits(limits: dict[str, Any]) -> str:
    pauses = ", ".join(f"{seconds:g}" for seconds in limits["parked"])
    parts = [f"{limits['inline']} tries at once, parked for {pauses or 'no'} s, given up after {limits['max_age'] / 3600:g} h"]
    parts += [f"{limits['timeout']:g} s for one run, {limits['concurrency']} at a time"]
    parts += [f"{kind}: {', '.join(limits[kind])}" for kind in ("transient", "terminal") if limits[kind]]
    return "; ".join(parts)
