"""Find an operation by what people call it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from linkspan.app import App
    from linkspan.operation import Operation

__all__ = ["callable_operations", "find_operation", "operations_of"]

MANY = 12
"""As many names are listed in a sentence."""


def operations_of(app: App) -> list[Operation[Any, Any]]:
    """Return the operations of an app's services, in order of declaration."""
    return [operation for service in app.services for contract in service.contracts for operation in contract.operations]


def callable_operations(module: object) -> list[Operation[Any, Any]]:
    """Return the operations of the service contracts that a module declares or imports."""
    from linkspan.operation import ServiceContract  # noqa: PLC0415 - only where a module is looked at

    values: Iterable[Any] = list(vars(module).values())
    contracts = [value for value in values if isinstance(value, type) and issubclass(value, ServiceContract)]
    return [operation for contract in contracts for operation in contract.operations]


def find_operation(operations: Iterable[Operation[Any, Any]], name: str) -> Operation[Any, Any]:
    """Return the operation of a name: full, a path, or shortened from the left, in the form of the contract or of Python.

    `shop.orders.v1.Orders.PlaceOrder`, `/shop.orders.v1.Orders/PlaceOrder`, `Orders.PlaceOrder`, `PlaceOrder` and `place_order` are
    the same. Raises `SetupError` when none or more than one has it.
    """
    known = {operation.full_name: operation for operation in operations}
    wanted = name.strip("/").replace("/", ".")
    found = [operation for operation in known.values() if wanted in _names(operation)]
    if len(found) == 1:
        return found[0]
    if found:
        raise SetupError(f"The operation '{name}' is not unique: name one of {', '.join(each.full_name for each in found)}.")
    if not known:
        raise SetupError(f"The operation '{name}' is not known, since there is none here: name another app with --app.")
    short = {each: operation.full_name for operation in known.values() for each in _names(operation)}
    close = list(dict.fromkeys(short[each] for each in get_close_matches(wanted, short, n=3)))
    offered = close or list(known)[:MANY]
    raise SetupError(f"The operation '{name}' is not known: name one of {', '.join(offered)}.")


def _names(operation: Operation[Any, Any]) -> set[str]:
    parts = operation.full_name.split(".")
    service = ".".join(parts[:-1])
    suffixes = {".".join(parts[index:]) for index in range(len(parts))}
    return suffixes | {operation.name, f"{parts[-2]}.{operation.name}", f"{service}.{operation.name}"}
