"""What an app sent, by type: for the assertions of tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from linkspan import envelope as envelopes
from linkspan.envelope import JSON
from linkspan.errors import SetupError
from linkspan.message import decode, decode_json, is_event, type_name
from linkspan.operation import EventType, Operation, ServiceContract

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linkspan.ports import Outgoing

__all__ = ["Sent", "name_of"]

T = TypeVar("T")


def name_of(what: Any) -> str:
    """Return the name that an event class, event type or operation has on the wire."""
    if isinstance(what, Operation | EventType):
        return what.full_name
    if isinstance(what, type) and hasattr(what, "desc"):
        return type_name(what)
    raise SetupError(f"{what!r} is neither a message class nor an operation: name one of these.")


def _names_of(what: Any) -> set[str]:
    """Return the wire names of a class: its own for an event, those of the commands that take it otherwise."""
    if isinstance(what, Operation | EventType) or is_event(what):
        return {name_of(what)}
    made = [contract for contract in ServiceContract.__subclasses__() if "full_name" in vars(contract)]  # a refused one is never whole
    operations = (operation for contract in made for operation in contract.operations)
    return {operation.full_name for operation in operations if operation.request is what} or {name_of(what)}


def _class_of(what: Any) -> Any:
    if isinstance(what, Operation | EventType):
        typed: Any = cast("Any", what)
        return typed.request if isinstance(what, Operation) else typed.message
    return what


class Sent:
    """Events and durable commands, oldest first; each id once, however often it was published."""

    def __init__(self, messages: Sequence[Outgoing]) -> None:
        self._messages = list(messages)

    def __len__(self) -> int:
        return len(self._messages)

    def __repr__(self) -> str:
        return f"Sent({', '.join(envelopes.read(message.headers).type for message in self._messages)})"

    @overload
    def all(self, what: type[T]) -> list[T]: ...
    @overload
    def all(self, what: Operation[T, Any]) -> list[T]: ...
    @overload
    def all(self, what: EventType[T]) -> list[T]: ...
    def all(self, what: Any) -> list[Any]:
        """Return the messages of an event class, of a command's request class, or of an operation."""
        cls = _class_of(what)
        names = _names_of(what)
        found: list[Any] = []
        for message in self._messages:
            envelope = envelopes.read(message.headers)
            if envelope.type in names and envelope.reference is not None:
                text = f"'{envelope.type}' was sent with its content in the blob place: look at its effect, or raise Blobs(above=...)."
                raise AssertionError(text)
            if envelope.type in names:
                found.append(decode_json(cls, message.data) if envelope.content_type == JSON else decode(cls, message.data))
        return found

    @overload
    def one(self, what: type[T]) -> T: ...
    @overload
    def one(self, what: Operation[T, Any]) -> T: ...
    @overload
    def one(self, what: EventType[T]) -> T: ...
    def one(self, what: Any) -> Any:
        """Return the only message of its kind. Raises `AssertionError` where there is none, or several."""
        found = self.all(what)
        if len(found) != 1:
            raise AssertionError(f"'{name_of(what)}' was sent {len(found)} times, not once; sent in all: {self!r}.")
        return found[0]

    def none(self, what: Any) -> None:
        """Raise `AssertionError` where a message of this kind was sent."""
        found = self.all(what)
        if found:
            raise AssertionError(f"'{name_of(what)}' was sent {len(found)} times; sent in all: {self!r}.")
