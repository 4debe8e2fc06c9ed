"""Where in Python the elements of a contract are declared."""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from linkspan.contracts.descriptors import all_enums, all_messages, files_of, services_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from protobuf import DescEnum, DescMessage

    from linkspan.contract import Contract

__all__ = ["Place", "nearest", "places"]


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, counted from 1; the path is relative to the current folder where that is possible."""

    file: str
    line: int


def places(contracts: Iterable[Contract]) -> dict[str, Place]:
    """Return places by full protobuf name; a contract without source, or a generated one, has none but its own."""
    found: dict[str, Place] = {}
    for contract in contracts:
        module = sys.modules.get(contract.module)
        try:
            source, path = inspect.getsource(module) if module else "", inspect.getsourcefile(module) if module else None
        except (OSError, TypeError):
            continue
        if path:
            lines = dict(_lines(ast.parse(source).body, ""))
            lines[""] = _first(lines, source)
            file = _relative(path)
            found |= {name: Place(file, line) for name, line in _named(contract, lines).items() if line}
    return found


def nearest(name: str, known: Mapping[str, Place]) -> Place | None:
    """Return the place of an element, or of the closest one around it."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return known.get(name)


def _relative(path: str) -> str:
    here = Path.cwd()
    file = Path(path).absolute()
    return (file.relative_to(here) if file.is_relative_to(here) else file).as_posix()


def _lines(body: list[ast.stmt], scope: str) -> Iterator[tuple[str, int]]:
    for statement in body:
        match statement:
            case ast.ClassDef(name=name, lineno=line):
                yield scope + name, line
                yield from _lines(statement.body, f"{scope}{name}.")
            case ast.AnnAssign(target=ast.Name(id=name), lineno=line) | ast.Assign(targets=[ast.Name(id=name)], lineno=line):
                yield scope + name, line
            case _:
                pass


def _first(lines: Mapping[str, int], source: str) -> int:
    """Return the line of `contract = Contract(...)`."""
    called = [number for number, text in enumerate(source.splitlines(), 1) if "Contract(" in text and "class " not in text]
    return lines.get("contract") or next(iter(called), 1)


def _named(contract: Contract, lines: Mapping[str, int]) -> dict[str, int]:
    found = {contract.package: lines[""]}
    for service in services_of(contract):
        found[service.full_name] = lines.get(service.__name__, 0)
        found |= {each.full_name: lines.get(f"{service.__name__}.{each.name}", 0) for each in service.operations}
    for file in files_of(contract):
        for message in all_messages(file.messages):
            found |= _of_message(message, lines)
        for enum in all_enums(file):
            found |= _of_enum(enum, lines)
    return found


def _of_message(message: DescMessage, lines: Mapping[str, int]) -> dict[str, int]:
    name = message.type_name.removeprefix(f"{message.file.proto.package}.")
    found = {message.type_name: lines.get(name, 0)}
    found |= {f"{message.type_name}.{each.name}": lines.get(f"{name}.{each.local_name}", 0) for each in message.members}
    for oneof in message.oneofs:
        found |= {f"{message.type_name}.{each.name}": lines.get(f"{name}.{oneof.local_name}", 0) for each in oneof.fields}
    return found


def _of_enum(enum: DescEnum, lines: Mapping[str, int]) -> dict[str, int]:
    name = enum.type_name.removeprefix(f"{enum.file.proto.package}.")
    found = {enum.type_name: lines.get(name, 0)}
    return found | {f"{enum.type_name}.{each.name}": lines.get(f"{name}.{each.local_name}", 0) for each in enum.values}
