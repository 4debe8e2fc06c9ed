"""Docs of a contract, from the source of its module: docstrings, and string literals under a field or an operation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.contract import find_contract
from linkspan.contracts.descriptors import all_enums, all_messages, files_of, services_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protobuf import DescEnum, DescMessage

__all__ = ["comments"]


def comments(module: str) -> Mapping[str, str]:
    """Return the docs of a contract's module by full protobuf name, as in 'shop.orders.v1.Order.note' or 'shop.orders.v1.Orders.GetOrder'.

    Enum values are named inside their enum, the module's own docstring by the package. Reads the source on each call: meant for export.
    """
    contract = find_contract(module)
    if contract is None:
        return {}
    texts = contract.docs()
    package = contract.package
    found: dict[str, str] = {package: texts.get("", "")}
    for service in services_of(contract):
        found[service.full_name] = texts.get(service.__name__, "")
        found |= {each.full_name: texts.get(f"{service.__name__}.{each.name}", "") for each in service.operations}
    for file in files_of(contract):
        for message in all_messages(file.messages):
            found |= _of_message(message, texts)
        for enum in all_enums(file):
            found |= _of_enum(enum, texts)
    return {name: text for name, text in found.items() if text}


def _of_message(message: DescMessage, texts: Mapping[str, str]) -> dict[str, str]:
    name = _python_name(message)
    found = {message.type_name: texts.get(name, "")}
    return found | {f"{message.type_name}.{each.name}": texts.get(f"{name}.{each.local_name}", "") for each in message.members}


def _of_enum(enum: DescEnum, texts: Mapping[str, str]) -> dict[str, str]:
    name = _python_name(enum)
    found = {enum.type_name: texts.get(name, "")}
    return found | {f"{enum.type_name}.{each.name}": texts.get(f"{name}.{each.local_name}", "") for each in enum.values}


def _python_name(desc: DescMessage | DescEnum) -> str:
    return desc.type_name.removeprefix(f"{desc.file.proto.package}.")
