"""Members that share a group: lanes that move, a member that is killed, one that stands still."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from linkspan.brokers.kafka import KafkaBroker
from linkspan.envelope import Envelope, prefix, render
from linkspan.ports import Outgoing
from linkspan.runtime import system
from linkspan.testing.collector import Collector
from tests.kafka.servers import KafkaCluster, needs_kafka

if TYPE_CHECKING:
    from collections.abc import Iterator

LANES = 64
EVERY = {str(number).encode() for number in range(LANES)}
TAKEOVER = 10.0
"""Seconds from a kill until another member has its lanes; a machine with much to do gets half as many again."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    needs_kafka()
    made = KafkaCluster(tmp_path_factory.mktemp("groups"))
    asyncio.run(made.start())
    yield made
    made.kill()


async def connect(cluster: KafkaCluster, topic: str) -> KafkaBroker:
    broker = KafkaBroker(cluster.url, runtime=system())
    await broker.open()
    await broker.declare([topic], [(topic, "g")])
    return broker


async def send(broker: KafkaBroker, topic: str, *numbers: int) -> None:
    """Send a message into the lane of each number."""
    block = render(prefix("a.B", "s"), Envelope("1", "s", "a.B", key="k", time="2026-01-01T00:00:00.000Z"))
    sent = [Outgoing(topic, "B", number % LANES, str(number), "k", block, str(number).encode()) for number in numbers]
    await asyncio.gather(*[broker.publish(message) for message in sent])


async def test_a_lane_that_moves_is_committed_first_and_its_deliveries_become_harmless(cluster: KafkaCluster) -> None:
    topic = "groups.moves.events"
    first, second, had, got = await connect(cluster, topic), await connect(cluster, topic), Collector(), Collector(ack=True)
    await first.subscribe(topic, "g", had, prefetch=100)
    await send(first, topic, *range(LANES))
    await had.count(LANES)
    settled = {str(number).encode() for number in range(0, LANES, 2)}
    for delivery in had.deliveries:
        if delivery.data in settled:
            delivery.ack()

    await second.subscribe(topic, "g", got, prefetch=100)  # takes half of the lanes
    await got.count(1)
    await send(first, topic, *range(LANES, 2 * LANES))
    await got.count(2)
    for delivery in list(had.deliveries):
        delivery.ack()
    had.ack = True
    everything = EVERY | {str(number).encode() for number in range(LANES, 2 * LANES)}
    async with asyncio.timeout(30):
        while set(had.data) | set(got.data) != everything:  # noqa: ASYNC110 - two collectors
            await asyncio.sleep(0.05)

    assert settled.isdisjoint(got.data)
    await asyncio.gather(first.aclose(), second.aclose())
    third, later = await connect(cluster, topic), Collector(ack=True)
    await third.subscribe(topic, "g", later, prefetch=100)
    await send(third, topic, 999)
    await later.all_of({b"999"})
    await third.aclose()
    assert settled.isdisjoint(later.data)
    assert all(int(data) >= LANES for data in later.data)


async def test_a_killed_members_lanes_are_taken_over(cluster: KafkaCluster) -> None:
    topic = "groups.killed.events"
    broker, got = await connect(cluster, topic), Collector(ack=True)
    member = Path(__file__).with_name("member.py")
    child = await asyncio.create_subprocess_exec(sys.executable, str(member), cluster.url, topic, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    await send(broker, topic, *range(LANES))
    for _ in range(LANES):
        await child.stdout.readline()
    joining = asyncio.create_task(broker.subscribe(topic, "g", got, prefetch=100))
    clock = asyncio.get_running_loop().time
    begun = clock()

    child.kill()
    await child.wait()
    await joining
    await got.all_of(EVERY)

    assert clock() - begun < TAKEOVER * 1.5
    assert set(got.data) == EVERY
    await broker.aclose()


async def test_a_member_that_settles_nothing_for_long_keeps_its_lanes(cluster: KafkaCluster) -> None:
    topic = "groups.slow.events"
    slow, other, had, got = await connect(cluster, topic), await connect(cluster, topic), Collector(), Collector(ack=True)
    await slow.subscribe(topic, "g", had, prefetch=1)
    await other.subscribe(topic, "g", got, prefetch=100)
    await send(slow, topic, *range(LANES))
    await had.count(1)
    await got.count(1)

    await asyncio.sleep(7.0)  # longer than a session: a full prefetch must not look like a death

    seen = len(got.data)
    assert had.data[0] not in got.data
    had.ack = True
    had.deliveries[0].ack()
    await had.until(lambda: len(set(had.data) | set(got.data)) == LANES, "all lanes")
    assert len(got.data) == seen
    await asyncio.gather(slow.aclose(), other.aclose())


async def test_lanes_that_were_asked_for_in_vain_can_be_asked_for_again(cluster: KafkaCluster) -> None:
    topic = "groups.vain.events"
    broker, gone, got = await connect(cluster, topic), Collector(), Collector(ack=True)
    kept = await broker.subscribe(topic, "g", gone, prefetch=10, lanes=[1])
    cluster.kill()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await broker.subscribe(topic, "g", gone, prefetch=10, lanes=[3, 4])
    await cluster.start()

    await broker.subscribe(topic, "g", got, prefetch=10, lanes=[3, 4])
    await broker.subscribe(topic, "g", got, prefetch=10, lanes=[1])  # also one that is still read here: the later one has it
    await send(broker, topic, 3, 4, 1)

    await got.all_of({b"3", b"4", b"1"})
    assert gone.data == []
    await kept.stop()
    await broker.aclose()
