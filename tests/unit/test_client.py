"""The verbs of programs that are no service, and what they say when they cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Client, Code, Context, Error, SetupError
from linkspan.brokers.memory import MemoryBroker
from linkspan.runtime import system
from tests.unit.app_shop import TABLE, Find, Found, Keyless, Orders, Place, Placed, app_of, contract, orders_service, reacting
from tests.unit.durable import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

NOWHERE = "http://127.0.0.1:1"


async def keep(ctx: Context, event: Placed) -> None:
    ctx.tx.record("insert into seen values (?)", event.order)


async def test_call_send_and_publish_reach_the_service(tmp_path: Path) -> None:
    placed: list[tuple[str, str]] = []

    async def place(ctx: Context, request: Place) -> Found:
        placed.append((request.order, ctx.caller))
        return Found(order=request.order)

    mail = reacting("mail", keep, migrations=[TABLE])
    async with (
        app_of(tmp_path, orders_service(place=place), mail) as app,
        Client(app.broker, addresses=app.address, name="till", owns=[contract]) as client,
    ):
        assert await client.call(Orders.find, Find(order="1")) == Found(order="1")
        await client.call(Orders.place, Place(order="2"))
        await client.send(Orders.place, Place(order="3"))
        await client.publish(Placed(order="4"))
        store = app.running["mail"].store
        assert store is not None

        async def handled() -> bool:
            return len(placed) == 2 and await store.read("select text from seen") == [("4",)]

        await until(handled, "both messages are handled")
    assert placed == [("2", "till"), ("3", "/till")]


async def test_command_with_a_key_is_one_effect(tmp_path: Path) -> None:
    placed: list[str] = []

    async def place(ctx: Context, request: Place) -> Found:
        placed.append(request.note)
        return Found(order=request.order)

    async with app_of(tmp_path, orders_service(place=place)) as app, app.client("till") as till, app.client("web") as web:
        for client, note in ((till, "first"), (till, "again"), (web, "somebody else"), (till, "last")):
            key = None if note == "last" else "order-7"
            await client.send(Orders.place, Place(order="7", note=note), key=key)
        await until(lambda: placed[-1:] == ["last"], "the last one is handled")
    assert placed == ["first", "somebody else", "last"]


async def with_broker(doing: Callable[[Client], Awaitable[Any]], addresses: Any = None) -> None:
    broker = MemoryBroker(runtime=system())
    await broker.open()
    async with Client(broker, addresses=addresses, owns=["app.shop.v1"]) as client:
        await doing(client)
    await broker.aclose()


WRONG: dict[str, tuple[Callable[[Client], Awaitable[Any]], Code, str]] = {
    "no address": (lambda c: c.call(Orders.find, Find(order="1")), Code.UNAVAILABLE, "No address for 'app.shop.v1.Orders': add it"),
    "call of another request": (
        lambda c: c.call(Orders.find, Place(order="1")),  # type: ignore[arg-type]
        Code.INVALID_ARGUMENT,
        "'app.shop.v1.Orders.Find' was given a Place: call it with its own request",
    ),
    "sent query": (lambda c: c.send(Orders.find, Find(order="1")), Code.INVALID_ARGUMENT, "which is a query: call it"),  # type: ignore[arg-type]
    "send of another request": (lambda c: c.send(Orders.place, Find(order="1")), Code.INVALID_ARGUMENT, "was given a Find"),  # type: ignore[arg-type]
    "published message": (lambda c: c.publish(Found(order="1")), Code.INVALID_ARGUMENT, "Cannot publish 'Found', which is no event"),  # type: ignore[arg-type]
    "empty key": (lambda c: c.publish(Placed(note="x")), Code.INVALID_ARGUMENT, "'app.shop.v1.Placed' has no order key"),
    "keyless event": (lambda c: c.publish(Keyless(text="x")), Code.INVALID_ARGUMENT, "has no order key: mark a field with key=True"),
    "oversized event": (
        lambda c: c.publish(Placed(order="1", note="x" * 1_000_000)),
        Code.INVALID_ARGUMENT,
        "fit: set App(blobs=...) to keep large contents elsewhere",
    ),
    "wrong field": (lambda c: c.publish(Placed(order="1", note=7)), Code.INVALID_ARGUMENT, "cannot be encoded"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("doing", "code", "sentence"), WRONG.values(), ids=WRONG.keys())
async def test_wrong_use_is_a_coded_error(doing: Callable[[Client], Awaitable[Any]], code: Code, sentence: str) -> None:
    with pytest.raises(Error) as caught:
        await with_broker(doing)
    assert (caught.value.code, sentence in caught.value.message) == (code, True), caught.value


async def test_unreachable_address_is_unavailable() -> None:
    with pytest.raises(Error) as caught:
        await with_broker(lambda client: client.call(Orders.find, Find(order="1"), timeout=2.0), NOWHERE)
    assert caught.value.code is Code.UNAVAILABLE


async def test_client_without_broker_says_how_to_get_one() -> None:
    async with Client(addresses=NOWHERE, owns=[Placed]) as client:
        with pytest.raises(Error, match=r"The client has no broker: write Client\(broker='nats://…'\) and enter it"):
            await client.publish(Placed(order="1"))
        with pytest.raises(SetupError, match="A client has no resource 'int'"):
            client.resource(int)


@pytest.mark.parametrize("addresses", ["127.0.0.1:80", "http://", "ftp://a", {"orders": "http://a:b"}, {"orders": "http://u:p@a"}])
def test_address_that_cannot_be_called_is_refused_at_once(addresses: Any) -> None:
    with pytest.raises(SetupError, match="write 'http://host:port'"):
        Client(addresses=addresses)


async def test_aclose_is_idempotent() -> None:
    client = Client("memory://", addresses=NOWHERE, owns="*")
    async with client:
        await client.publish(Placed(order="1"))
    await client.aclose()
    with pytest.raises(Error, match="has no broker"):
        await client.publish(Placed(order="1"))


async def test_addresses_are_found_by_contract_package_and_star(tmp_path: Path) -> None:
    async with app_of(tmp_path, orders_service()) as app:
        for known in ("app.shop.v1.Orders", "app.shop.v1", "*"):
            async with Client(addresses={"*": NOWHERE, known: app.address}) as client:
                assert await client.call(Orders.find, Find(order=known)) == Found(order=known)
