"""What an app's services declare: their topics, groups and message types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan.errors import SetupError
from linkspan.message import type_name
from linkspan.operation import Command
from linkspan.outgoing.sender import command_topic, event_topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linkspan.app import App
    from linkspan.service import Service

__all__ = ["chosen_topics", "groups_of", "lane_groups_of", "topics_of", "types_of"]


def _taken(service: Service) -> set[str]:
    """Return the topics that a service consumes."""
    commands = {command_topic(each.package) for each in service.operations.values() if isinstance(each.operation, Command)}
    return commands | {event_topic(each.package) for each in service.events.values()}


def groups_of(app: App) -> list[tuple[str, str]]:
    """Return the `(topic, group)` pairs of an app's services."""
    return [(topic, service.name) for service in app.services for topic in sorted(_taken(service))]


def lane_groups_of(app: App) -> set[tuple[str, str]]:
    """Return those of them that are read lane by lane: of services whose store several instances may share."""
    from linkspan.runtime import system  # noqa: PLC0415 - only where stores are looked at
    from linkspan.stores import open_store  # noqa: PLC0415 - as above

    stores = {each.name: open_store(app.store_url(each), name=each.name, runtime=system(), exclusive=False) for each in app.services}
    return {(topic, name) for topic, name in groups_of(app) if stores[name].shared}


def topics_of(app: App) -> list[str]:
    """Return the topics that an app's services publish to or consume."""
    own = {event_topic(contract.contract.package) for service in app.services for contract in service.contracts}
    return sorted(own | {topic for topic, _ in groups_of(app)})


def types_of(app: App) -> dict[str, tuple[str, Any]]:
    """Return each type of message that may pass the broker: its name to its topic and class."""
    found: dict[str, tuple[str, Any]] = {}
    for service in app.services:
        for contract in service.contracts:
            package = contract.contract.package
            found.update({type_name(event): (event_topic(package), event) for event in contract.contract.events})
            found.update({event.full_name: (event_topic(event.package), event.message) for event in contract.events})
            for operation in contract.operations:
                if isinstance(operation, Command):
                    found[operation.full_name] = (command_topic(package), operation.request)
        found.update({each.name: (event_topic(each.package), each.request) for each in service.events.values()})
    return found


def chosen_topics(app: App, names: Sequence[str]) -> dict[str, set[str] | None]:
    """Return the topics to look at, and which types there (None for all): named by topic, package, or type, full or shortened.

    Raises `SetupError` for a name that is none of them.
    """
    topics, types = topics_of(app), types_of(app)
    if not names:
        return dict.fromkeys(topics)
    chosen: dict[str, set[str] | None] = {}
    for name in names:
        whole = [topic for topic in topics if topic in {name, f"{name}.events", f"{name}.commands"}]
        chosen.update(dict.fromkeys(whole))
        part = [full for full in types if full == name or full.endswith(f".{name}")]
        for full in part:
            among = chosen.setdefault(types[full][0], set())
            if among is not None:
                among.add(full)
        if not whole and not part:
            offered = ", ".join([*topics, *types]) or "none, since it declares nothing that is sent"
            raise SetupError(f"'{name}' is no topic and no message of this app: name one of {offered}.")
    return chosen
