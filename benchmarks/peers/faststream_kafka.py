"""FastStream on Kafka (confluent): fills a topic, and consumes it with a typed handler, a message at a time."""

from __future__ import annotations

import asyncio

from confluent_kafka.admin import AdminClient, NewTopic
from faststream import AckPolicy
from faststream.confluent import KafkaBroker

from benchmarks import payload, worker
from benchmarks.peers.faststream_event import OrderPlaced

ROWS = payload.events()
GROUP = "bench"
POLICIES = {"auto": AckPolicy.ACK_FIRST, "each": AckPolicy.NACK_ON_ERROR}
"""ACK_FIRST leaves the commits to librdkafka, every 5 s, handled or not; the other commits after each message that was handled."""


async def fill(addresses: str, topic: str, partitions: int, operations: int, callers: int) -> None:
    """Create the topic and publish."""
    admin = AdminClient({"bootstrap.servers": addresses})
    await asyncio.to_thread(admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result, 30.0)
    async with KafkaBroker(addresses, logger=None) as broker:
        await broker.start()

        async def operation(number: int) -> None:
            event = OrderPlaced(**ROWS[number % payload.VARIETY])
            await broker.publish(event, topic, key=event.order_id.encode())

        await worker.closed_loop(callers, operations, operation)


class Consumer(worker.Counting):
    """One FastStream application that consumes one topic."""

    def __init__(self) -> None:
        super().__init__()
        self._broker: KafkaBroker | None = None

    async def start(self, addresses: str, topic: str, mode: str) -> None:
        """Consume `topic` from its beginning; `mode` says when offsets are committed."""
        broker = KafkaBroker(addresses, logger=None)

        @broker.subscriber(topic, group_id=GROUP, auto_offset_reset="earliest", ack_policy=POLICIES[mode])
        async def on_order_placed(event: OrderPlaced) -> None:
            assert event.cents
            if self._tally:
                self._tally.hit()

        self._broker = broker
        await broker.start()

    async def stop(self, total: int) -> None:
        """Close the application and check that it handled exactly `total` messages since `expect`."""
        if self._broker:
            await self._broker.stop()
        self._broker = None
        assert self._tally
        self._tally.check(total)


if __name__ == "__main__":
    consumer = Consumer()
    worker.main({"fill": fill, "start": consumer.start, "expect": consumer.expect, "result": consumer.result, "stop": consumer.stop})
