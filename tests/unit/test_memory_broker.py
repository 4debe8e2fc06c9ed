"""The memory broker's faults and timers, in time that stands still; the contract suite covers the rest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from linkspan.brokers.memory import Faults, MemoryBroker, MemoryLog
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Outgoing
from linkspan.testing.clock import fake_runtime, settle
from linkspan.testing.collector import Collector

if TYPE_CHECKING:
    from linkspan.ports import Runtime

TOPIC = "shop.orders.v1.events"


def message(id_: str, data: bytes = b"") -> Outgoing:
    return Outgoing(TOPIC, "OrderPlaced", 1, id_, "k", b"ce-id: x\r\n", data or id_.encode())


async def opened(runtime: Runtime, faults: Faults | None = None, log: MemoryLog | None = None) -> MemoryBroker:
    broker = MemoryBroker(runtime=runtime, faults=faults, log=log)
    await broker.open()
    await broker.declare([TOPIC], [(TOPIC, "g")])
    return broker


async def test_lost_confirmation_is_stored_and_deduplicated() -> None:
    faults = Faults(lost_confirmations=1.0)
    broker, got = await opened(fake_runtime()[0], faults), Collector(ack=True)
    await broker.subscribe(TOPIC, "g", got, prefetch=10)

    with pytest.raises(Error) as caught:
        await broker.publish(message("a"))
    faults.lost_confirmations = 0.0
    await broker.publish(message("a"))
    await broker.publish(message("b"))
    await settle()

    assert caught.value.code is Code.UNAVAILABLE
    assert got.data == [b"a", b"b"]


async def test_lost_publish_is_not_stored() -> None:
    faults = Faults(lost_publishes=1.0)
    broker, got = await opened(fake_runtime()[0], faults), Collector(ack=True)
    await broker.subscribe(TOPIC, "g", got, prefetch=10)

    with pytest.raises(Error):
        await broker.publish(message("a"))
    with pytest.raises(Error) as caught:
        await broker.publish_batch([message("b"), message("c")])
    await settle()

    assert caught.value.code is Code.ABORTED
    assert got.data == []


async def test_batch_in_doubt_is_resent_singly() -> None:
    faults = Faults(lost_confirmations=1.0)
    broker, got = await opened(fake_runtime()[0], faults), Collector(ack=True)
    await broker.subscribe(TOPIC, "g", got, prefetch=10)
    batch = [message("a"), message("b")]

    with pytest.raises(Error) as caught:
        await broker.publish_batch(batch)
    faults.lost_confirmations = 0.0
    for each in batch:
        await broker.publish(each)
    await settle()

    assert caught.value.code is Code.ABORTED
    assert got.data == [b"a", b"b"]


async def test_lost_ack_comes_again_after_ack_wait() -> None:
    (runtime, clock), faults = fake_runtime(), Faults(lost_acks=1.0)
    broker, got = await opened(runtime, faults, MemoryLog(ack_wait=30.0)), Collector(ack=True)
    await broker.subscribe(TOPIC, "g", got, prefetch=1)
    await broker.publish(message("a"))
    await broker.publish(message("b"))
    await settle()
    assert got.data == [b"a", b"b"]

    faults.lost_acks = 0.0
    await clock.advance(29.0)
    await settle()
    assert got.data == [b"a", b"b"]
    await clock.advance(2.0)
    await settle()

    assert got.data == [b"a", b"b", b"a", b"b"]
    assert [delivery.attempt for delivery in got.deliveries] == [1, 1, 2, 2]
    await clock.advance(100.0)
    await settle()
    assert len(got.deliveries) == 4


async def test_beat_holds_redelivery_off() -> None:
    runtime, clock = fake_runtime()
    broker, got = await opened(runtime), Collector()
    await broker.subscribe(TOPIC, "g", got, prefetch=10)
    await broker.publish(message("a"))
    await settle()

    for _ in range(5):
        await clock.advance(20.0)
        got.deliveries[0].beat()
        await settle()
    assert len(got.deliveries) == 1
    await clock.advance(31.0)
    await settle()

    assert got.data == [b"a", b"a"]


async def test_duplicates_are_handed_over_twice() -> None:
    broker, got = await opened(fake_runtime()[0], Faults(duplicates=1.0)), Collector()
    await broker.subscribe(TOPIC, "g", got, prefetch=10)

    await broker.publish(message("a"))
    await got.count(2)
    for delivery in list(got.deliveries):
        delivery.ack()
    await settle()

    assert set(got.data) == {b"a"}


async def test_delay_holds_confirmation_and_delivery_back() -> None:
    runtime, clock = fake_runtime()
    broker, got = await opened(runtime, Faults(delay=2.0)), Collector(ack=True)
    await broker.subscribe(TOPIC, "g", got, prefetch=10)

    future = broker.publish(message("a"))
    await settle()
    assert (future.done(), got.data) == (False, [])
    await clock.advance(2.0)
    await settle()

    assert (future.done(), got.data) == (True, [b"a"])


async def test_id_is_forgotten_after_the_window() -> None:
    runtime, clock = fake_runtime()
    broker, got = await opened(runtime, log=MemoryLog(window=120.0)), Collector(ack=True)
    await broker.subscribe(TOPIC, "g", got, prefetch=10)

    await broker.publish(message("a"))
    await clock.advance(119.0)
    await broker.publish(message("a"))
    await clock.advance(2.0)
    await broker.publish(message("a"))
    await settle()

    assert got.data == [b"a", b"a"]


async def test_log_outlives_brokers_and_loops() -> None:
    log = MemoryLog()

    def crash() -> None:
        async def first_life() -> None:
            broker, got = await opened(fake_runtime()[0], log=log), Collector()
            await broker.subscribe(TOPIC, "g", got, prefetch=10)
            for name in "abc":
                await broker.publish(message(name))
            (await got.count(3))[0].ack()

        asyncio.run(first_life())

    await asyncio.to_thread(crash)
    broker, got = await opened(fake_runtime()[0], log=log), Collector(ack=True)
    await broker.subscribe(TOPIC, "g", got, prefetch=10)

    await got.count(2)
    assert got.data == [b"b", b"c"]


async def test_stop_fails_what_is_in_flight() -> None:
    log = MemoryLog()
    broker = await opened(fake_runtime()[0], Faults(delay=5.0), log)

    future = broker.publish(message("a"))
    log.stop()

    with pytest.raises(Error) as caught:
        await future
    assert caught.value.code is Code.UNAVAILABLE
    with pytest.raises(Error):
        await broker.declare([TOPIC], [])


async def test_prefetch_below_one_is_refused() -> None:
    broker = await opened(fake_runtime()[0])

    with pytest.raises(SetupError, match="use 1 or more"):
        await broker.subscribe(TOPIC, "g", Collector(), prefetch=0)


async def test_attestation_promises_nothing() -> None:
    assert (await (await opened(fake_runtime()[0])).attest()).level == "none"
