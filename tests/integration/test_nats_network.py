"""A NATS broker on a bad network: cut, stalled and silent connections, words that make nats-py give up. Both ways of sending."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from linkspan.brokers import nats, nats_consumer
from linkspan.brokers.nats import NatsBroker
from linkspan.errors import Code, Error
from linkspan.ports import Outgoing
from linkspan.runtime import system
from linkspan.testing.collector import Collector
from tests.integration.nats_runner import NatsRunner, Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

TOPIC = "shop.orders.v1.events"
BOTH = pytest.mark.parametrize("hot_path", [True, False], ids=["hot", "public"])


def message(number: int, size: int = 0) -> Outgoing:
    return Outgoing(TOPIC, "OrderPlaced", number % 64, f"id-{number}", "k", b"ce-id: x\r\n", b"%d" % number + b" " * size)


@asynccontextmanager
async def network(tmp_path: Path, *, hot_path: bool, **options: Any) -> AsyncGenerator[tuple[Proxy, NatsBroker]]:
    """Start a server, a proxy before it, and a broker that knows only the proxy, with one topic and one group."""
    async with NatsRunner(tmp_path, sync="2m") as server, Proxy(server.port) as proxy:
        broker = NatsBroker(proxy.url, runtime=system(), user=server.user, password=server.password, hot_path=hot_path, options=options)
        await broker.open()
        await broker.declare([TOPIC], [(TOPIC, "g")])
        try:
            yield proxy, broker
        finally:
            await broker.aclose()


async def stored(broker: NatsBroker, number: int, size: int = 0) -> None:
    """Publish as a relay does: again, with the same id, until it is confirmed."""
    async with asyncio.timeout(20):
        while True:
            (outcome,) = await asyncio.gather(broker.publish(message(number, size)), return_exceptions=True)
            if outcome is None:
                return
            assert isinstance(outcome, Error)
            assert outcome.code is Code.UNAVAILABLE
            await asyncio.sleep(0.02)


async def never() -> None:
    """Stand for a reconnecting task that hangs."""
    await asyncio.Event().wait()


def in_order(data: list[bytes]) -> bool:
    """First arrivals only ever go up."""
    first = [int(each) for each in dict.fromkeys(data)]
    return first == sorted(first)


@BOTH
async def test_cut_connections_lose_nothing_and_keep_order(tmp_path: Path, hot_path: bool) -> None:
    async with network(tmp_path, hot_path=hot_path) as (proxy, broker):
        got = Collector(ack=True)
        await broker.subscribe(TOPIC, "g", got, prefetch=16)

        for number in range(120):
            await stored(broker, number)
            if number % 30 == 20:
                proxy.cut()

        await got.all_of({b"%d" % number for number in range(120)})
        assert in_order(got.data)
        assert proxy.accepted >= 5


@BOTH
async def test_unsettled_come_before_newer_after_a_cut(tmp_path: Path, hot_path: bool) -> None:
    async with network(tmp_path, hot_path=hot_path) as (proxy, broker):
        got = Collector()
        await broker.subscribe(TOPIC, "g", got, prefetch=10)
        for number in range(30):
            await stored(broker, number)
        await got.count(10)

        proxy.cut()
        await got.count(20)
        got.ack = True
        for delivery in list(got.deliveries):
            delivery.ack()

        await got.all_of({b"%d" % number for number in range(30)})
        assert got.data[10:20] == got.data[:10]
        assert in_order(got.data)


@BOTH
async def test_stalled_connection_ends_publishes_at_their_deadline(tmp_path: Path, hot_path: bool) -> None:
    async with network(tmp_path, hot_path=hot_path, publish_timeout=0.4) as (proxy, broker):
        await stored(broker, 0)
        proxy.stall()

        outcomes = await asyncio.wait_for(asyncio.gather(*[broker.publish(message(n)) for n in range(1, 50)], return_exceptions=True), 10)

        assert {outcome.code for outcome in outcomes if isinstance(outcome, Error)} == {Code.UNAVAILABLE}
        assert len(outcomes) == 49
        assert "within 0.4 s" in str(outcomes[0])
        proxy.flow()
        await stored(broker, 1)


@BOTH
async def test_silent_connection_is_noticed_and_left(tmp_path: Path, hot_path: bool) -> None:
    async with network(tmp_path, hot_path=hot_path, publish_timeout=0.4, ping_interval=0.1, max_outstanding_pings=2) as (proxy, broker):
        got = Collector(ack=True)
        await broker.subscribe(TOPIC, "g", got, prefetch=10)
        before = proxy.accepted
        proxy.stall()

        async with asyncio.timeout(20):
            while proxy.accepted == before:  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0.02)
        proxy.flow()

        await stored(broker, 1)
        await got.all_of({b"1"})


@BOTH
async def test_broker_comes_back_after_nats_py_gave_up(tmp_path: Path, hot_path: bool, caplog: pytest.LogCaptureFixture) -> None:
    async with network(tmp_path, hot_path=hot_path) as (proxy, broker):
        got = Collector(ack=True)
        await broker.subscribe(TOPIC, "g", got, prefetch=10)
        await stored(broker, 0)

        proxy.say(b"-ERR 'Slow Consumer'\r\n")
        async with asyncio.timeout(20):
            while "closed by nats-py" not in caplog.text:  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0.01)

        for number in range(1, 20):
            await stored(broker, number)
        await got.all_of({b"%d" % number for number in range(20)})
        assert in_order(got.data)


@BOTH
async def test_garbage_from_the_server_costs_one_connection(tmp_path: Path, hot_path: bool) -> None:
    async with network(tmp_path, hot_path=hot_path) as (proxy, broker):
        got = Collector(ack=True)
        await broker.subscribe(TOPIC, "g", got, prefetch=10)

        for number, garbage in enumerate([b"MSG x y z\r\n\r\n\r\n", b"\x00\xff what\r\n\r\n", b"HMSG a 1 b c d\r\n\r\n\r\n"]):
            await stored(broker, number)
            proxy.say(garbage)

        await stored(broker, 3)
        await got.all_of({b"0", b"1", b"2", b"3"})
        assert in_order(got.data)


@BOTH
async def test_client_that_does_not_come_back_is_replaced(tmp_path: Path, hot_path: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats, "STUCK", 0.2)
    async with network(tmp_path, hot_path=hot_path) as (proxy, broker):
        got: Any = Collector(ack=True)
        await broker.subscribe(TOPIC, "g", got, prefetch=10)
        await stored(broker, 0)
        old: Any = broker._client
        monkeypatch.setattr(old, "_select_next_server", never)
        proxy.cut()

        for number in range(1, 10):
            await stored(broker, number)

        await got.all_of({b"%d" % number for number in range(10)})
        assert in_order(got.data)
        assert broker._client is not old


@BOTH
async def test_deleted_group_goes_on_when_it_is_declared_again(tmp_path: Path, hot_path: bool) -> None:
    async with network(tmp_path, hot_path=hot_path) as (_, broker):
        got = Collector(ack=True)
        await broker.subscribe(TOPIC, "g", got, prefetch=10)
        await stored(broker, 0)
        await got.count(1)

        await broker.admin.request("CONSUMER.DELETE.shop_orders_v1_events.g")
        await stored(broker, 1)
        await broker.declare([TOPIC], [(TOPIC, "g")])

        await got.all_of({b"0", b"1"})
        assert got.first_seen() == [b"0", b"1"]


async def test_unsent_bytes_are_bounded(tmp_path: Path) -> None:
    async with network(tmp_path, hot_path=True, publish_timeout=30.0) as (proxy, broker):
        proxy.stall()
        futures = []
        for number in range(120):
            futures.append(broker.publish(message(number, 900_000)))
            await asyncio.sleep(0)

        refused = [future.exception() for future in futures if future.done()]

        assert 0 < len(refused) < 100
        assert all("Too much waits" in str(error) for error in refused)
        proxy.flow()
        for number in range(120):
            await stored(broker, number, 900_000)
        await asyncio.gather(*futures, return_exceptions=True)


@BOTH
async def test_reader_that_lags_loses_nothing(tmp_path: Path, hot_path: bool) -> None:
    async with network(tmp_path, hot_path=hot_path) as (_, broker):
        got = Collector(ack=True)
        await asyncio.gather(*[stored(broker, number, 20_000) for number in range(300)])
        wakes: list[int] = []

        def receive(delivery: Any) -> None:
            if len(got.deliveries) % 100 == 0:
                wakes.append(sum(range(2_000_000)))  # the loop stands still meanwhile
            got(delivery)

        await broker.subscribe(TOPIC, "g", receive, prefetch=1000)

        await got.count(300)
        assert len({bytes(data) for data in got.data}) == 300


@BOTH
async def test_pulls_that_expire_are_renewed(
    tmp_path: Path, hot_path: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nats_consumer, "EXPIRES", 0.3)
    monkeypatch.setattr(nats_consumer, "HEARTBEAT", 0.1)
    caplog.set_level("INFO", "linkspan.nats")
    async with network(tmp_path, hot_path=hot_path) as (_, broker):
        got = Collector(ack=True)
        await broker.subscribe(TOPIC, "g", got, prefetch=10)

        for number in range(6):
            await asyncio.sleep(0.2)  # several pulls expire between and around the messages
            await stored(broker, number)
            await got.count(number + 1)

        assert got.data == [b"%d" % number for number in range(6)]
        assert "starts again" not in caplog.text


@BOTH
async def test_silence_on_a_pull_starts_the_subscription_again(
    tmp_path: Path, hot_path: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nats_consumer, "HEARTBEAT", 0.1)
    caplog.set_level("INFO", "linkspan.nats")
    async with network(tmp_path, hot_path=hot_path) as (_, broker):
        got = Collector()
        subscription: Any = await broker.subscribe(TOPIC, "g", got, prefetch=10)
        for number in range(5):
            await stored(broker, number)
        await got.count(5)

        subscription.current.outstanding += 1  # as if the server had forgotten a pull: prefetch is never filled
        subscription.current._pulls += 1
        await subscription.current.listener.close()
        await got.count(10)

        assert got.data == [b"%d" % number for number in range(5)] * 2
        assert "no sign of life" in str([record.__dict__ for record in caplog.records])
