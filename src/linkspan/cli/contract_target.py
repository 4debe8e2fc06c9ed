"""Find the contracts that a command is about: those of a module, of a package of modules, or of an app."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

from linkspan.cli.target import load_app, load_module
from linkspan.contract import Contract, find_contract
from linkspan.contracts.asyncapi import Member
from linkspan.contracts.descriptors import events_of
from linkspan.errors import SetupError
from linkspan.message import package_of, type_name
from linkspan.operation import Command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from linkspan.app import App
    from linkspan.service import Service

__all__ = ["load_contracts", "members_of_app"]


def load_contracts(target: str) -> tuple[list[Contract], App | None]:
    """Return the contracts of `module` or `module:app`, linked, and the app where one is named.

    A package stands for its modules. Raises `SetupError` saying what is wrong with the name.
    """
    if ":" in target:
        app = load_app(target)
        found = list(_of_app(app))
        hint = "give its services a ServiceContract, or name the module of the contract"
    else:
        app = None
        if not all(word.isidentifier() for word in target.split(".")):
            raise SetupError(f"The target '{target}' names no module: write it with dots, as in shop.contracts.orders_v1, or module:app.")
        found = list(_of_module(load_module(target)))
        hint = "name the module that has the line `contract = Contract(...)`, or an app as module:app"
    if not found:
        raise SetupError(f"'{target}' has no contract: {hint}.")
    for contract in found:
        contract.link()
    return list(dict.fromkeys(found)), app


def members_of_app(app: App) -> list[Member]:
    """Return what each service of an app sends and takes."""
    return [_member(service) for service in app.services]


def _member(service: Service) -> Member:
    contracts = dict.fromkeys(each.contract for each in service.contracts)
    events = dict.fromkeys(event for contract in contracts for event in events_of(contract))
    return Member(
        service.name,
        publishes=tuple(event for event in events if service.owned.allows(package_of(event), type_name(event))),
        takes=tuple(each.operation for each in service.operations.values() if isinstance(each.operation, Command)),
        reacts=tuple(each.request for each in service.events.values()),
        batches=tuple(service.batched),
    )


def _of_module(module: ModuleType) -> Iterator[Contract]:
    contract = find_contract(module.__name__)
    if contract is not None:
        yield contract
    for part in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if not part.ispkg:
            yield from _of_module(load_module(f"{module.__name__}.{part.name}"))


def _of_app(app: App) -> Iterator[Contract]:
    for service in app.services:
        yield from (each.contract for each in service.contracts)
        for event in service.events.values():
            contract = Contract.of(event.package)
            if contract is not None:
                yield contract
