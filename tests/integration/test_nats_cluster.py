"""A cluster of three NATS servers: replicas, and leaders that are killed while writers write and a group reads."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from linkspan.brokers import broker_for
from linkspan.errors import Code, Error, SetupError
from linkspan.ports import Outgoing
from linkspan.runtime import system
from linkspan.testing.collector import Collector
from tests.integration.nats_cluster import NatsCluster

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan.ports import Broker

TOPIC, STREAM, CONSUMER = "shop.orders.v1.events", "shop_orders_v1_events", "shop_orders_v1_events.g"
WRITERS = 4
FOLLOWS = 4.0
"""Seconds within which messages flow again, from when the cluster has elected other leaders (which takes it 4 to 9)."""


async def opened(cluster: NatsCluster, query: str = "") -> Broker:
    broker = broker_for(cluster.url + query, system())
    await broker.open()
    return broker


def message(writer: int, number: int) -> Outgoing:
    return Outgoing(TOPIC, "OrderPlaced", writer, f"id-{writer}-{number}", f"k{writer}", b"ce-id: x\r\n", b"%d %d" % (writer, number))


async def store(broker: Broker, each: Outgoing) -> None:
    """Do what a relay does: send the same message until it is confirmed."""
    while True:
        try:
            await broker.publish(each)
        except Error as error:
            if error.code is not Code.UNAVAILABLE:
                raise
            await asyncio.sleep(0.02)
        else:
            return


async def elections(cluster: NatsCluster) -> float:
    """Wait until stream and consumer have leaders; return when that was."""
    await asyncio.gather(cluster.leader(STREAM), cluster.leader(CONSUMER))
    return time.monotonic()


async def test_streams_and_consumers_of_a_cluster_have_three_replicas(tmp_path: Path) -> None:
    async with NatsCluster(tmp_path) as cluster:
        broker = await opened(cluster)

        assert await broker.declare([TOPIC], [(TOPIC, "g")]) == []

        stream = await cluster.ask(f"$JS.API.STREAM.INFO.{STREAM}")
        consumer = await cluster.ask(f"$JS.API.CONSUMER.INFO.{CONSUMER}")
        assert stream["config"]["num_replicas"] == 3
        assert [len(found["cluster"]["replicas"]) for found in (stream, consumer)] == [2, 2]
        assert (await broker.attest()).facts["replicas"] == "3"
        await broker.aclose()


async def test_replicas_as_the_address_says_and_others_are_drift(tmp_path: Path) -> None:
    async with NatsCluster(tmp_path) as cluster:
        one = await opened(cluster, "?replicas=1")
        assert await one.declare([TOPIC], []) == []
        three = await opened(cluster)

        drifts = await three.declare([TOPIC], [])

        assert [(drift.setting, drift.declared, drift.found) for drift in drifts] == [("num_replicas", "3", "1")]
        assert await one.declare([TOPIC], []) == []
        await one.aclose()
        await three.aclose()


async def test_more_replicas_than_servers_are_refused(tmp_path: Path) -> None:
    async with NatsCluster(tmp_path) as cluster:
        broker = await opened(cluster, "?replicas=5")

        with pytest.raises(SetupError, match=r"cannot have 5 replicas .*: run 5 servers with JetStream"):
            await broker.declare([TOPIC], [])

        await broker.aclose()


async def test_writers_and_readers_follow_leaders_that_are_killed(tmp_path: Path) -> None:
    """Stream leader and consumer leader die in turn under four writers: nothing lost, nothing stored twice, order per key."""
    async with NatsCluster(tmp_path) as cluster:
        publisher, reader, got = await opened(cluster), await opened(cluster), Collector(ack=True)
        await publisher.declare([TOPIC], [(TOPIC, "g")])
        await reader.subscribe(TOPIC, "g", got, prefetch=64)

        ended, written = asyncio.Event(), [0] * WRITERS

        async def write(writer: int) -> None:
            while not ended.is_set():
                await store(publisher, message(writer, written[writer]))
                written[writer] += 1
                await asyncio.sleep(0.005)

        writing = asyncio.gather(*(write(writer) for writer in range(WRITERS)))
        for what in (STREAM, CONSUMER):
            seen = len(set(got.data))
            await got.until(lambda wanted=seen + 100: len(set(got.data)) >= wanted, "some more of them")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            leader = await cluster.leader(what)
            leader.kill()
            seen = len(set(got.data))
            elected = await elections(cluster)
            await got.until(lambda seen=seen: len(set(got.data)) > seen, "the next one")  # type: ignore[misc]  # as above
            assert time.monotonic() - elected < FOLLOWS
            await leader.start()
        ended.set()
        await writing

        wanted = {b"%d %d" % (writer, number) for writer in range(WRITERS) for number in range(written[writer])}
        await got.all_of(wanted)
        fresh, stored = await opened(cluster), Collector(ack=True)
        await fresh.declare([], [(TOPIC, "check")])
        await fresh.subscribe(TOPIC, "check", stored, prefetch=200)
        await stored.count(len(wanted))
        assert len(stored.data) == len(set(stored.data)), "stored twice"
        for data in (stored.data, got.first_seen()):
            for writer in range(WRITERS):
                mine = [int(each.split()[1]) for each in data if each.startswith(b"%d " % writer)]
                assert mine == list(range(written[writer]))
        for broker in (publisher, reader, fresh):
            await broker.aclose()


async def test_reset_brings_unsettled_again_in_order_from_the_next_leader(tmp_path: Path) -> None:
    """CONSUMER.RESET on three replicas: what was in hand when the consumer's leader died comes again, before anything newer."""
    async with NatsCluster(tmp_path) as cluster:
        broker, got = await opened(cluster), Collector()
        await broker.declare([TOPIC], [(TOPIC, "g")])
        await broker.subscribe(TOPIC, "g", got, prefetch=10)
        for number in range(20):
            await store(broker, message(0, number))
        await got.count(10)
        in_hand = [b"0 %d" % number for number in range(10)]
        assert got.data == in_hand

        (await cluster.leader(CONSUMER)).kill()
        elected = await elections(cluster)
        await got.count(20)
        assert time.monotonic() - elected < FOLLOWS
        assert got.data[10:20] == in_hand
        got.ack = True
        for delivery in got.deliveries[10:20]:
            delivery.ack()

        await got.all_of({b"0 %d" % number for number in range(20)})
        assert got.first_seen() == [b"0 %d" % number for number in range(20)]
        await broker.aclose()
