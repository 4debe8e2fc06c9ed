"""Docs of a contract, from the source of its module: docstrings, and string literals under a field or an operation."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Final

from protobuf import DescMessage

from linkspan.contract import find_contract
from linkspan.contracts.descriptors import all_enums, all_messages, files_of, services_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from protobuf import DescEnum

__all__ = ["WRITTEN", "comments"]

WRITTEN: Final = "Written by `linkspan contracts import`"
"""Begins the part of a module's docstring that is not its author's."""
_BLOCK: Final = "```proto"
_PART: Final = re.compile(r"^    (\w+):\n((?:(?: {8}.*)?\n)*?) {8}```proto", re.MULTILINE)


def comments(module: str) -> Mapping[str, str]:
    """Return the docs of a contract's module by full protobuf name, as in 'shop.orders.v1.Order.note' or 'shop.orders.v1.Orders.GetOrder'.

    Enum values are named inside their enum, the module's own docstring by the package. Reads the source on each call: meant for export.
    """
    contract = find_contract(module)
    if contract is None:
        return {}
    texts = contract.docs()
    package = contract.package
    found: dict[str, str] = {package: texts.get("", "").partition(WRITTEN)[0].strip()}
    for service in services_of(contract):
        found[service.full_name] = texts.get(service.__name__, "")
        found |= {each.full_name: texts.get(f"{service.__name__}.{each.name}", "") for each in service.operations}
    for file in files_of(contract):
        types: tuple[DescMessage | DescEnum, ...] = (*all_messages(file.messages), *all_enums(file))
        for desc in types:
            found |= _of_type(desc, texts)
    return {name: text for name, text in found.items() if text}


def _of_type(desc: DescMessage | DescEnum, texts: Mapping[str, str]) -> dict[str, str]:
    name = desc.type_name.removeprefix(f"{desc.file.proto.package}.")
    told = texts if name in texts or find_contract(desc.type.__module__) else _generated(desc, name)
    parts = desc.members if isinstance(desc, DescMessage) else desc.values
    found = {desc.type_name: told.get(name, "")}
    return found | {f"{desc.type_name}.{part.name}": told.get(f"{name}.{part.local_name}", "") for part in parts}


def _generated(desc: DescMessage | DescEnum, name: str) -> dict[str, str]:
    """Read the docstring of a class that protoc-gen-py made: the comment, the declaration in a block, then the same for each part."""
    text = inspect.cleandoc(desc.type.__doc__ or "")
    if _BLOCK not in text:
        return {}
    own, _, rest = text.partition(_BLOCK)
    found = {name: own.strip()}
    for part, said in _PART.findall(rest.partition("Attributes:\n")[2]):
        found[f"{name}.{part}"] = inspect.cleandoc(said).strip()
    return found
