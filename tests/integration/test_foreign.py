"""What a FastStream program publishes is read as events: JSON and MessagePack, with and without a stream of its own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import nats
import pytest

from linkspan import App, Code, Context, Contract, Error, Event, Service, SetupError, field
from linkspan.ports import LetterState
from tests.integration.nats_runner import NatsRunner
from tests.unit.durable import until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

contract = Contract("foreign.orders.v1")


class OrderPlaced(Event):
    order_id: str = field(1, key=True)
    cents: int = field(2, gte=0)
    note: str = field(3)


def address(server: NatsRunner) -> str:
    return server.url.replace("//", f"//{server.user}:{server.password}@")


@asynccontextmanager
async def faststream(server: NatsRunner) -> AsyncGenerator[Any]:
    """Start a real FastStream broker."""
    published = pytest.importorskip("faststream.nats", reason="not run: faststream is not installed")
    async with published.NatsBroker(address(server), logger=None) as broker:
        yield broker


@asynccontextmanager
async def running(server: NatsRunner, folder: Path, *, stream: str = "") -> AsyncGenerator[tuple[App, list[tuple[str, int, str]]]]:
    handled: list[tuple[str, int, str]] = []
    billing = Service("billing", migrations=["create table bill (order_id text)"])

    @billing.on(OrderPlaced)
    async def bill(ctx: Context, event: OrderPlaced) -> None:
        if event.note == "refuse":
            raise Error.refused("Not this one.")
        ctx.tx.record("insert into bill values (?)", event.order_id)
        handled.append((event.order_id, event.cents, ctx.correlation))

    billing.reads("orders.placed", OrderPlaced, stream=stream)
    async with App(billing, broker=address(server), data=folder, http="127.0.0.1:0") as app:
        yield app, handled


async def letters(app: App) -> list[Any]:
    store = app.running["billing"].store
    assert store is not None
    return await store.letters()


async def test_json_of_a_pydantic_model_is_an_event_and_its_correlation_goes_on(tmp_path: Path) -> None:
    pydantic = pytest.importorskip("pydantic", reason="not run: pydantic is not installed")
    model = pydantic.create_model("Order", order_id=(str, ...), cents=(int, ...))
    async with NatsRunner(tmp_path) as server, running(server, tmp_path / "app") as (app, handled), faststream(server) as theirs:
        for number in range(3):
            await theirs.publish(model(order_id=f"o{number}", cents=number), "orders.placed", correlation_id=f"flow-{number}")
        await until(lambda: len(handled) == 3, "all are handled")
        assert sorted(handled) == [(f"o{number}", number, f"flow-{number}") for number in range(3)]
        assert await letters(app) == []


@pytest.mark.parametrize("headers", [None, {"content-type": "application/msgpack"}], ids=["untold", "told"])
async def test_messagepack_is_an_event(tmp_path: Path, headers: dict[str, str] | None) -> None:
    body = msgspec.msgpack.encode({"order_id": "o1", "cents": 5})
    async with NatsRunner(tmp_path) as server, running(server, tmp_path / "app") as (_, handled), faststream(server) as theirs:
        await theirs.publish(body, "orders.placed", headers=headers)
        await until(lambda: [each[:2] for each in handled] == [("o1", 5)], "it is handled")


async def test_stream_of_its_own_is_read_from_its_beginning_and_each_message_once(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server, faststream(server) as theirs:
        admin = await nats.connect(address(server))
        await admin.jetstream().add_stream(name="ORDERS", subjects=["orders.>"])
        await admin.close()
        await theirs.publish({"order_id": "early", "cents": 1}, "orders.placed", stream="ORDERS")
        await theirs.publish({"order_id": "other", "cents": 1}, "orders.cancelled", stream="ORDERS")
        seen: list[Any] = []
        for _ in range(2):  # the second start finds everything done
            async with running(server, tmp_path / "app", stream="ORDERS") as (app, handled):
                seen.append(handled)
                await theirs.publish({"order_id": "late", "cents": 1}, "orders.placed", stream="ORDERS")
                await until(lambda: ("late", 1) in [each[:2] for each in handled], "the new one is handled")
                assert await letters(app) == []
        assert [[order for order, *_ in handled] for handled in seen] == [["early", "late"], ["late"]]


async def test_what_cannot_be_read_or_is_refused_is_a_dead_letter_as_it_came(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server, running(server, tmp_path / "app") as (app, handled), faststream(server) as theirs:
        for body in (
            "a plain text",
            {"order_id": "bad", "cents": "many"},
            {"cents": 1},
            {"order_id": "rule", "cents": -1},
            {"order_id": "no", "note": "refuse"},
        ):
            await theirs.publish(body, "orders.placed")
        await theirs.publish({"order_id": "good", "cents": 2}, "orders.placed")
        async with asyncio.timeout(20):
            while len(await letters(app)) < 5:  # noqa: ASYNC110 - what another thread commits rings no bell here
                await asyncio.sleep(0.02)
        await until(lambda: [each[0] for each in handled] == ["good"], "the good one is handled")
        held = await letters(app)
        assert {letter.state for letter in held} == {LetterState.DEAD}
        assert {letter.topic for letter in held} == {"billing:orders.placed"}
        assert {letter.type for letter in held} == {"foreign.orders.v1.OrderPlaced"}
        assert sorted(letter.code for letter in held) == ["failed_precondition", *["invalid_argument"] * 4]
        assert b'{"cents":1}' in [letter.data.replace(b" ", b"") for letter in held]


async def test_order_of_a_key_is_kept(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server, running(server, tmp_path / "app") as (_, handled), faststream(server) as theirs:
        for number in range(60):
            await theirs.publish({"order_id": f"k{number % 3}", "cents": number}, "orders.placed")
        await until(lambda: len(handled) == 60, "all are handled")
        for key in ("k0", "k1", "k2"):
            assert [cents for order, cents, _ in handled if order == key] == [n for n in range(60) if f"k{n % 3}" == key]


async def test_publisher_that_waits_for_an_answer_gets_none_from_the_stream(tmp_path: Path) -> None:
    """A stream that acknowledged would answer in the place of the one who was asked."""
    async with NatsRunner(tmp_path) as server, running(server, tmp_path / "app") as (_, handled), faststream(server) as theirs:
        with pytest.raises(Exception, match=r"(?i)no responders|timeout|^$"):
            await theirs.request({"order_id": "o1", "cents": 5}, "orders.placed", timeout=0.5)
        await until(lambda: [each[0] for each in handled] == ["o1"], "it is an event all the same")


async def test_stream_that_is_not_there_is_told_at_start(tmp_path: Path) -> None:
    async with NatsRunner(tmp_path) as server:
        with pytest.raises(Error) as caught:
            async with running(server, tmp_path / "app", stream="NOWHERE"):
                pass
        assert caught.value.code is Code.NOT_FOUND


async def test_broker_without_subjects_of_others_is_refused(tmp_path: Path) -> None:
    billing = Service("billing")

    @billing.on(OrderPlaced)
    async def bill(ctx: Context, event: OrderPlaced) -> None:
        """Do nothing."""

    billing.reads("orders.placed", OrderPlaced)
    with pytest.raises(SetupError, match=r"reads 'orders\.placed', which MemoryBroker cannot: run it on NATS"):
        async with App(billing, broker="memory://", data=tmp_path, http="127.0.0.1:0"):
            pass
