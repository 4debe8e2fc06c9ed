"""How a name is written in a `.proto` file so that protobuf's scoping finds the type that is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from protobuf import DescFile, DescMessage

__all__ = ["Names"]


class Names:
    """All names of some files.

    A name is looked up from the innermost scope outwards, and its first word decides (protobuf language guide).
    """

    def __init__(self, files: Iterable[DescFile]) -> None:
        self._known: set[str] = set()
        for file in files:
            words = file.proto.package.split(".")
            self._known.update(".".join(words[:count]) for count in range(1, len(words) + 1))
            self._known.update(_declared(file))

    def shortest(self, full_name: str, scope: str, package: str) -> str:
        """Return how to write a type inside a scope: by the end of its name, in full if that leads elsewhere, or in full behind a dot."""
        words = full_name.removeprefix(f"{package}.").split(".") if full_name.startswith(f"{package}.") else []
        endings = (".".join(words[-count:]) for count in range(1, len(words) + 1))
        for written in (*endings, full_name):
            if self._found(written, scope) == full_name:
                return written
        return f".{full_name}"

    def _found(self, written: str, scope: str) -> str:
        first, dot, rest = written.partition(".")
        while True:
            start = f"{scope}.{first}" if scope else first
            if start in self._known:
                return start + dot + rest
            if not scope:
                return ""
            scope = scope.rpartition(".")[0]


def _declared(file: DescFile) -> Iterator[str]:
    package = file.proto.package
    inside = f"{package}." if package else ""
    for enum in file.enums:
        yield enum.type_name
        yield from (inside + value.name for value in enum.values)
    for extension in file.extensions:
        yield inside + extension.name
    for service in file.services:
        yield service.type_name
        yield from (f"{service.type_name}.{method.name}" for method in service.methods)
    for message in file.messages:
        yield from _of_message(message)


def _of_message(message: DescMessage) -> Iterator[str]:
    name = message.type_name
    yield name
    yield from (f"{name}.{field.name}" for field in message.fields)
    yield from (f"{name}.{oneof.name}" for oneof in message.oneofs)
    yield from (f"{name}.{extension.name}" for extension in message.nested_extensions)
    for enum in message.nested_enums:
        yield enum.type_name
        yield from (f"{name}.{value.name}" for value in enum.values)
    for nested in message.nested_messages:
        yield from _of_message(nested)
