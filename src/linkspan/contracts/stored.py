"""Whether what services have stored, waiting in outboxes or held as letters, can be read with the present classes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field as dataclass_field
from typing import TYPE_CHECKING, Any, Final

from linkspan import envelope as envelopes
from linkspan.contracts.descriptors import events_of, services_of
from linkspan.contracts.report import Item, Topic
from linkspan.contracts.wire import unread
from linkspan.errors import Error
from linkspan.message import decode, decode_json, type_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    import protobuf

    from linkspan.contract import Contract
    from linkspan.ports import Store

    Types = Mapping[str, type[protobuf.Message[Any]]]

__all__ = ["STORED", "Examined", "examine", "types_of"]

NO_TYPE: Final = Topic(
    "STORED_TYPE_EXISTS",
    "The type of each stored message is declared.",
    "Declare the type again, marked deprecated, until no message of it is left; or discard them with their reason: linkspan dead discard.",
)
NOT_DECODED: Final = Topic(
    "STORED_MESSAGE_DECODES",
    "Each stored message can be decoded by its class.",
    "Give the fields their old types again; or hold the deploy until the outbox is empty and the letters are redriven.",
)
UNREAD: Final = Topic(
    "STORED_FIELD_READ",
    "Each field of a stored message is read as what it was written as.",
    "Give the field its old type again and declare the new one under another number: its value would read as absent.",
)
NO_HEADERS: Final = Topic(
    "STORED_HEADERS_READ",
    "The headers of each stored message say its type.",
    "It came so, and no contract can mend it: look at it and discard it with its reason: linkspan dead show.",
    level="warning",
)
STORED: Final = (NO_TYPE, NOT_DECODED, UNREAD, NO_HEADERS)
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class _Row:
    """A stored message: `place` is 'outbox' or 'letter'."""

    place: str
    position: int
    id: str
    type: str
    content_type: str
    data: bytes


@dataclass(slots=True)
class Examined:
    """How many messages of each type were looked at, by place, and what is wrong with some."""

    counts: Counter[tuple[str, str]] = dataclass_field(default_factory=Counter[tuple[str, str]])
    items: list[Item] = dataclass_field(default_factory=list[Item])


def types_of(contracts: Iterable[Contract]) -> dict[str, type[protobuf.Message[Any]]]:
    """Return what can be stored, by the type that its headers name: events by message, commands by operation."""
    found: dict[str, type[protobuf.Message[Any]]] = {}
    for contract in contracts:
        found |= {type_name(cls): cls for cls in events_of(contract)}
        found |= {each.full_name: each.request for service in services_of(contract) for each in service.operations}
    return found


async def examine(store: Store, name: str, types: Types) -> Examined:
    """Decode every outbox row and every held letter of an open store. `name` is how people know it."""
    found = Examined()
    async for row in _rows(store):
        found.counts[row.place, row.type] += 1
        item = _examined(row, name, types)
        if item is not None:
            found.items.append(item)
    return found


async def _rows(store: Store) -> AsyncIterator[_Row]:
    after = 0
    while page := await store.unsent(after, PAGE):
        for message in page:
            after = message.position
            yield _row("outbox", message.position, message.id, message.headers, message.data)
    after = 0
    while letters := await store.letters(after=after, limit=PAGE):
        for letter in letters:
            after = letter.position
            yield _row("letter", letter.position, letter.id, letter.headers, letter.data)


def _row(place: str, position: int, id_: str, headers: bytes, content: bytes) -> _Row:
    try:
        envelope = envelopes.read(headers)
    except Error:
        return _Row(place, position, id_, "", "", content)
    return _Row(place, position, id_, envelope.type, envelope.content_type, content)


def _examined(row: _Row, name: str, types: Types) -> Item | None:
    what = f"{row.place} {row.position} of {name}, id '{row.id}'"
    if not row.type:
        return _item(NO_HEADERS, row, name, f"The headers of {what}, cannot be read.")
    cls = types.get(row.type)
    if cls is None:
        return _item(NO_TYPE, row, name, f"The type '{row.type}' of {what}, is in no contract.")
    try:
        if row.content_type.startswith(envelopes.JSON):
            decode_json(cls, row.data)
            return None
        decode(cls, row.data)
    except Error:
        return _item(NOT_DECODED, row, name, f"The {row.type} in {what}, cannot be decoded.")
    lost = unread(cls.desc(), row.data)
    return _item(UNREAD, row, name, f"The {row.type} in {what}, holds {', '.join(lost)} as another type.") if lost else None


def _item(topic: Topic, row: _Row, name: str, sentence: str) -> Item:
    fields = {"store": name, "place": row.place, "position": row.position, "id": row.id, "type": row.type}
    return Item(topic, f"{name}/{row.place}/{row.position}", sentence, f"store {name}", None, fields)
