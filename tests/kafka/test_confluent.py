"""Confluent's wire format on a real topic, both directions, with a plain client as the other side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer

from linkspan import Contract, Event, field
from linkspan.brokers.kafka import KafkaBroker
from linkspan.brokers.kafka_framing import HEADER, Confluent, unframed
from linkspan.envelope import Envelope, lane_of, prefix, read, render
from linkspan.ports import Outgoing
from linkspan.runtime import system
from linkspan.testing.collector import Collector
from tests.kafka.registry import Registry
from tests.kafka.servers import KafkaCluster, needs_kafka

if TYPE_CHECKING:
    from pathlib import Path

contract = Contract("kafka.confluent.v1")
TOPIC = "kafka.confluent.v1.events"
KIND = "kafka.confluent.v1.Paid"


class Paid(Event):
    order: str = field(1, key=True)
    cents: int = field(2)


def outgoing(event: Paid) -> Outgoing:
    runtime = system()
    id_ = runtime.ids.new()
    block = render(prefix(KIND, "till"), Envelope(id_, "till", KIND, key=event.order, time="2026-01-01T00:00:00.000Z"))
    return Outgoing(TOPIC, "Paid", lane_of(event.order), id_, event.order, block, event.to_binary())


def raw(cluster: KafkaCluster) -> Any:
    """Return the first message as a plain client sees it."""
    consumer: Any = Consumer({"bootstrap.servers": cluster.addresses, "group.id": "plain", "auto.offset.reset": "earliest", "log_level": 0})
    try:
        consumer.subscribe([TOPIC])
        for _ in range(200):
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                return message
        raise AssertionError("nothing came")
    finally:
        consumer.close()


@pytest.mark.parametrize("form", ["header", "prefix"])
async def test_both_directions(tmp_path: Path, form: str) -> None:
    needs_kafka()
    with Registry() as registry:
        async with KafkaCluster(tmp_path) as cluster:
            chosen = Confluent(registry.url, {TOPIC: form}, [Paid])
            broker = KafkaBroker(cluster.url, runtime=system(), options={"confluent": chosen})
            await broker.open()
            await broker.declare([TOPIC], [(TOPIC, "books")])
            await broker.publish(outgoing(Paid(order="o1", cents=5)))

            message = await asyncio.to_thread(raw, cluster)
            headers = dict(message.headers())
            schema, path, data = unframed(message.value(), headers.get(HEADER))
            assert (HEADER in headers, headers["ce_type"], Paid.from_binary(data).cents) == (form == "header", KIND.encode(), 5)

            producer: Any = Producer({"bootstrap.servers": cluster.addresses, "log_level": 0})
            frame = {"headers": [(HEADER, headers[HEADER])]} if form == "header" else {}
            body = message.value() if form == "prefix" else data
            producer.produce(TOPIC, body, b"o1", lane_of("o1"), **frame)  # a publisher that knows nothing of CloudEvents
            assert await asyncio.to_thread(producer.flush, 10) == 0

            got = Collector(ack=True)
            await broker.subscribe(TOPIC, "books", got, prefetch=10)
            ours, foreign = await got.count(2)
            await broker.aclose()

    assert (schema, path) == (schema, [0])
    assert Paid.from_binary(ours.data) == Paid.from_binary(foreign.data) == Paid(order="o1", cents=5)
    found = read(foreign.headers, foreign.data)
    assert (found.type, found.key, found.id, found.source) == (KIND, "o1", f"{lane_of('o1')}-1", f"kafka:{TOPIC}")
    assert HEADER.encode() not in ours.headers
