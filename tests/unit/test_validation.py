"""Where field rules are applied: before the handler, before anything is written, before anything is claimed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from protobuf.wkt.google.protobuf.descriptor_pb import DescriptorProto, FieldDescriptorProto, FieldOptions, FileDescriptorProto

from linkspan import (
    App,
    Code,
    Context,
    Contract,
    Error,
    Event,
    Message,
    Service,
    ServiceContract,
    SetupError,
    command,
    event,
    field,
    query,
    stream,
)
from linkspan.brokers.memory import MemoryBroker
from linkspan.envelope import Envelope, prefix, render
from linkspan.options import link_file
from linkspan.ports import Outgoing
from linkspan.rules import schema
from linkspan.validation import check_of
from tests.unit.durable import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

contract = Contract("validation.shop.v1")
CANARY = "canary-0815"


class Place(Message):
    order: str = field(1, key=True)
    note: str = field(2, max_len=3)


class Found(Message):
    order: str = field(1, min_len=100)  # an answer is the service's own word: it is not held to rules


class Placed(Event):
    order: str = field(1, key=True)
    note: str = field(2, max_len=3)


class Orders(ServiceContract):
    place = command(Place, Found)
    find = query(Place, Found)


class Numbers(ServiceContract):
    watch = query(Place, stream(Found))
    fill = query(stream(Place), Found)


class Shop:
    """A service with its handlers' log, and one that reacts."""

    def __init__(self, folder: Path) -> None:
        self.ran: list[str] = []
        self.orders, self.mail = Service("orders", Orders), Service("mail")
        self.orders.handles(Orders.place)(self.place)
        self.orders.handles(Orders.find)(self.find)
        self.mail.on(Placed)(self.placed)
        self.app = App(self.orders, self.mail, broker="memory://", http="127.0.0.1:0", data=folder)

    async def place(self, ctx: Context, request: Place) -> Found:
        self.ran.append(f"place {request.order}")
        await ctx.publish(Placed(order=request.order, note=CANARY if request.note == "bad" else "ok"))
        return Found(order=request.order)

    async def find(self, ctx: Context, request: Place) -> Found:
        self.ran.append(f"find {request.order}")
        return Found(order=request.order)

    async def placed(self, ctx: Context, request: Placed) -> None:
        self.ran.append(f"placed {request.order}")

    def stored(self, topic: str = "validation.shop.v1.events") -> int:
        assert isinstance(self.app.broker, MemoryBroker)
        return len(self.app.broker.log.topics[topic].records)


def told(error: Error) -> list[str]:
    (details,) = error.details
    assert CANARY not in f"{error} {details}"
    return [violation.rule_id for violation in details.violations]  # type: ignore[attr-defined]  # protovalidate's message


@pytest.mark.parametrize("operation", [Orders.place, Orders.find])
async def test_broken_request_is_refused_before_the_handler(tmp_path: Path, operation: Any) -> None:
    shop = Shop(tmp_path)
    async with shop.app, shop.app.client() as client:
        with pytest.raises(Error) as caught:
            await client.call(operation, Place(order="7", note=CANARY))
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert "note (string.max_len)" in caught.value.message
        assert told(caught.value) == ["string.max_len"]
        await client.call(operation, Place(order="8", note="ok"))
    assert [line for line in shop.ran if "7" in line] == []


async def test_middleware_runs_before_validation(tmp_path: Path) -> None:
    """Who may not call learns nothing of what is wrong with the request."""

    async def guard(ctx: Context, request: Any, call_next: Any) -> Any:
        raise Error(Code.PERMISSION_DENIED, "Not you.")

    orders = Service("orders", Orders, middleware=[guard])
    shop = Shop(tmp_path)
    orders.handles(Orders.place)(shop.place)
    orders.handles(Orders.find)(shop.find)
    async with App(orders, broker="memory://", http="127.0.0.1:0", data=tmp_path) as app, app.client() as client:
        with pytest.raises(Error) as caught:
            await client.call(Orders.place, Place(order="7", note=CANARY))
    assert caught.value.code is Code.PERMISSION_DENIED


async def test_streams_are_held_to_their_rules_message_by_message(tmp_path: Path) -> None:
    seen: list[str] = []
    numbers = Service("numbers", Numbers)

    @numbers.handles(Numbers.watch)
    async def watch(ctx: Context, request: Place) -> AsyncIterator[Found]:
        seen.append(f"watch {request.order}")
        yield Found(order=request.order)

    @numbers.handles(Numbers.fill)
    async def fill(ctx: Context, requests: AsyncIterator[Place]) -> Found:
        seen.extend([f"fill {request.order}" async for request in requests])
        return Found()

    async def places() -> AsyncIterator[Place]:
        yield Place(order="1")
        yield Place(order="2", note=CANARY)

    async with App(numbers, broker="memory://", http="127.0.0.1:0", data=tmp_path) as app, app.client() as client:
        with pytest.raises(Error) as caught:
            _ = [answer async for answer in client.stream(Numbers.watch, Place(order="3", note=CANARY))]
        assert (caught.value.code, told(caught.value)) == (Code.INVALID_ARGUMENT, ["string.max_len"])
        with pytest.raises(Error) as caught:
            await client.call(Numbers.fill, places())
        assert (caught.value.code, told(caught.value)) == (Code.INVALID_ARGUMENT, ["string.max_len"])
        assert seen == []
        assert [answer.order async for answer in client.stream(Numbers.watch, Place(order="4"))] == ["4"]


async def test_broken_event_fails_its_publisher_and_nothing_is_written(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with shop.app, shop.app.client(owns=[contract]) as client:
        for publishing in (client.publish(Placed(order="7", note=CANARY)), client.call(Orders.place, Place(order="7", note="bad"))):
            with pytest.raises(Error) as caught:
                await publishing
            assert (caught.value.code, told(caught.value)) == (Code.INVALID_ARGUMENT, ["string.max_len"])
        assert shop.stored() == 0
        assert await shop.app.running["orders"].store.read("select count(*) from linkspan_outbox") == [(0,)]  # type: ignore[union-attr]  # it has one


async def test_broken_command_is_not_sent(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with shop.app, shop.app.client() as client:
        with pytest.raises(Error) as caught:
            await client.send(Orders.place, Place(order="7", note=CANARY))
        assert told(caught.value) == ["string.max_len"]
        assert shop.stored("validation.shop.v1.commands") == 0


async def test_broken_message_of_a_careless_publisher_is_a_dead_letter_and_claims_nothing(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    async with shop.app:
        broker = shop.app.broker
        assert broker is not None
        name = "validation.shop.v1.Placed"
        for number, note in enumerate((CANARY, "ok"), 7):
            headers = render(
                prefix(name, "/careless"), Envelope(f"id-{number}", "/careless", name, str(number), time="2026-11-22T00:00:00Z")
            )
            data = Placed(order=str(number), note=note).to_binary()
            await broker.publish(Outgoing("validation.shop.v1.events", "Placed", 0, f"id-{number}", str(number), headers, data))
        await until(lambda: shop.ran == ["placed 8"], "the good one is handled")
        store = shop.app.running["mail"].store
        assert store is not None

        async def settled() -> bool:
            claimed = await store.read("select count(*) from linkspan_inbox")
            return len(await store.letters()) == 1 and claimed == [(1,)]

        await until(settled, "the bad one is a dead letter, and only the good one is claimed")
        (letter,) = await store.letters()
        assert (letter.code, "note (string.max_len)" in letter.error, CANARY in letter.error) == ("invalid_argument", True, False)


def generated(name: str, *, known: Any) -> Any:
    """Make a class the way Buf's plugin does: a plain protobuf-py message, linked by its file."""
    from protobuf import Message as Plain, Oneof

    cls = type(Plain)("Ticket", (Plain,), {"__slots__": ("number", "owner")})
    options = FieldOptions()
    options[known.ext_field] = known.FieldRules(type=Oneof("int64", known.Int64Rules(greater_than=Oneof("gt", 0))))
    plain = {"label": FieldDescriptorProto.Label.OPTIONAL}
    fields = [
        FieldDescriptorProto(name="number", number=1, json_name="number", type=FieldDescriptorProto.Type.INT64, options=options, **plain),
        FieldDescriptorProto(name="owner", number=2, json_name="owner", type=FieldDescriptorProto.Type.STRING, **plain),
    ]
    proto = FileDescriptorProto(
        name=f"{name}.proto",
        package=name,
        syntax="proto3",
        dependency=["buf/validate/validate.proto"],
        message_type=[DescriptorProto(name="Ticket", field=fields)],
    )
    link_file(proto, [known.desc()], {"Ticket": cls})
    return cls


def test_proto_first_classes_are_held_to_their_rules() -> None:
    cls = generated("validation.gen.v1", known=schema())
    check = check_of(cls)
    assert check is not None
    check(cls(number=1))
    with pytest.raises(Error, match=r"number \(int64\.gt\)"):
        check(cls(number=0))
    assert event(cls).message is cls


def test_missing_protovalidate_is_told_when_the_app_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cls = generated("validation.late.v1", known=schema())
    service = Service("late")
    service.on(event(cls))(Shop(tmp_path).placed)  # type: ignore[arg-type]  # never called
    monkeypatch.setitem(sys.modules, "protovalidate", None)
    with pytest.raises(SetupError, match=r"install linkspan\[protovalidate\]"):
        App(service, broker="memory://", http="127.0.0.1:0", data=tmp_path)


def test_message_without_rules_has_nothing_between_it_and_its_handler(tmp_path: Path) -> None:
    from tests.unit.app_shop import app_of, orders_service

    service = orders_service()
    app_of(tmp_path, service)
    assert {check_of(handled.request) for handled in service.operations.values()} == {None}
