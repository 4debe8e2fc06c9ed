"""What stores hold is decoded with the present classes: rows and letters of an older contract, in a real file."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from linkspan import envelope as envelopes
from linkspan.contracts.stored import Examined, examine, types_of
from linkspan.ports import Outgoing
from linkspan.runtime import system
from linkspan.stores.sqlite import SqliteStore
from linkspan.testing.store_probe import Settled, letter
from tests.unit.declaring import declare

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from linkspan.ports import Letter, Store

CANARY = "CANARY-4711"
OLD = """
class Placed(Event):
    id: str = field(1, key=True)
    count: int = field(2)
    note: str = field(3)
class Left(Event):
    id: str = field(1, key=True)
class Pay(Message):
    id: str = field(1, key=True)
class Desk(ServiceContract):
    pay = command(Pay, Pay)
"""


def headers(type_: str, *, json: bool = False) -> bytes:
    content = envelopes.JSON if json else envelopes.PROTOBUF
    return envelopes.render(
        envelopes.prefix(type_, "/shop", content), envelopes.Envelope("e1", "/shop", type_, "k", time="2026-01-01T00:00:00Z")
    )


def row(id_: str, message: Any, type_: str = "") -> Outgoing:
    return Outgoing("stored.v1.events", "x", 7, id_, "k", headers(type_ or message.desc().type_name), message.to_binary())


def held(id_: str, message: Any) -> Letter:
    return replace(letter(id_), headers=headers(message.desc().type_name), data=message.to_binary(), type=message.desc().type_name)


@asynccontextmanager
async def stored(path: Path, *rows: Outgoing, letters: tuple[Letter, ...] = ()) -> AsyncGenerator[Store]:
    """Fill a store, and open it a second time beside its owner."""
    store = SqliteStore(path / "shop.db", name="shop", runtime=system())
    await store.open()
    done = Settled()
    units = [done.unit(messages=[each]) for each in rows] + [done.unit() for _ in letters]
    for unit, each in zip(units[len(rows) :], letters, strict=True):
        store.add_letter(unit, each)
    await done.submit(store, *units)
    beside = SqliteStore(path / "shop.db", name="shop", runtime=system(), exclusive=False)
    await beside.open()
    try:
        yield beside
    finally:
        await beside.aclose()
        await store.aclose()


def looked_at(path: Path, present: str, *rows: Outgoing, letters: tuple[Letter, ...] = ()) -> Examined:
    contract = declare(present, package="stored.v1", module="stored").contract

    async def look() -> Examined:
        async with stored(path, *rows, letters=letters) as store:
            return await examine(store, "shop", types_of([contract]))

    return asyncio.run(look())


def old() -> Any:
    return declare(OLD, package="stored.v1", module="stored")


def test_rows_of_the_same_contract_are_counted(tmp_path: Path) -> None:
    was = old()
    rows = [row("1", was.Placed(id="a")), row("2", was.Placed(id="b")), row("3", was.Pay(id="c"), "stored.v1.Desk.Pay")]
    found = looked_at(tmp_path, OLD, *rows, letters=(held("4", was.Left(id="d")),))
    assert found.items == []
    assert dict(found.counts) == {
        ("outbox", "stored.v1.Placed"): 2,
        ("outbox", "stored.v1.Desk.Pay"): 1,
        ("letter", "stored.v1.Left"): 1,
    }


def test_type_that_no_contract_has_is_named(tmp_path: Path) -> None:
    was = old()
    found = looked_at(tmp_path, OLD.replace("Left", "Gone"), row("1", was.Left(id=CANARY)), letters=(held("2", was.Left(id=CANARY)),))
    assert [(item.topic.id, item.fields["place"], item.fields["position"], item.fields["id"]) for item in found.items] == [
        ("STORED_TYPE_EXISTS", "outbox", 1, "1"),
        ("STORED_TYPE_EXISTS", "letter", 1, "2"),
    ]
    assert found.items[0].sentence == "The type 'stored.v1.Left' of outbox 1 of shop, id '1', is in no contract."


def test_message_that_cannot_be_decoded_is_named_without_its_content(tmp_path: Path) -> None:
    was = old()
    now = OLD.replace("note: str = field(3)", "note: 'Pay | None' = field(3, default=None)")
    (item,) = looked_at(tmp_path, now, row("1", was.Placed(id=CANARY, note=f"x{CANARY}")), row("2", was.Placed(id="b"))).items
    assert item.sentence == "The stored.v1.Placed in outbox 1 of shop, id '1', cannot be decoded."
    assert (item.topic.id, item.where) == ("STORED_MESSAGE_DECODES", "shop/outbox/1")
    assert CANARY not in repr(item)


def test_field_that_would_read_as_absent_is_named(tmp_path: Path) -> None:
    was = old()
    now = OLD.replace("count: int = field(2)", "count: str = field(2)")
    found = looked_at(tmp_path, now, row("1", was.Placed(id="a", count=4711)), row("2", was.Placed(id="b")))
    assert [item.sentence for item in found.items] == ["The stored.v1.Placed in outbox 1 of shop, id '1', holds count as another type."]


def test_field_that_was_removed_is_no_fault(tmp_path: Path) -> None:
    now = OLD.replace("    note: str = field(3)\n", "")
    assert looked_at(tmp_path, now, row("1", old().Placed(id="a", note="kept as it came"))).items == []


def test_json_is_read_as_json(tmp_path: Path) -> None:
    def json_row(id_: str, text: str) -> Outgoing:
        return Outgoing("stored.v1.events", "x", 7, id_, "k", headers("stored.v1.Placed", json=True), text.encode())

    found = looked_at(tmp_path, OLD, json_row("1", '{"id": "a", "count": "3"}'), json_row("2", '{"count": "CANARY-4711"}'))
    assert [(item.topic.id, item.fields["id"]) for item in found.items] == [("STORED_MESSAGE_DECODES", "2")]
    assert CANARY not in repr(found.items)


def test_letter_that_was_unreadable_from_the_start_is_a_warning(tmp_path: Path) -> None:
    (item,) = looked_at(tmp_path, OLD, letters=(letter("1"),)).items
    assert (item.topic.id, item.topic.level) == ("STORED_HEADERS_READ", "warning")


def test_all_pages_are_read(tmp_path: Path) -> None:
    was = old()
    rows = [row(str(number), was.Placed(id="a")) for number in range(1203)]
    letters = tuple(held(str(number), was.Left(id="d")) for number in range(501))
    found = looked_at(tmp_path, OLD, *rows, letters=letters)
    assert dict(found.counts) == {("outbox", "stored.v1.Placed"): 1203, ("letter", "stored.v1.Left"): 501}


def test_looking_changes_nothing(tmp_path: Path) -> None:
    was = old()

    async def look() -> None:
        async with stored(tmp_path, row("1", was.Left(id="a")), letters=(letter("1"),)) as store:
            before = await store.read("select * from linkspan_outbox, linkspan_letter")
            await examine(store, "shop", {})
            assert await store.read("select * from linkspan_outbox, linkspan_letter") == before

    asyncio.run(look())
