"""FastStream as a durable consumer: typed handler, at-least-once, every message acknowledged."""

from __future__ import annotations

from typing import Any

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig

from benchmarks import worker
from benchmarks.peers.faststream_event import OrderPlaced  # noqa: TC001 - FastStream reads the annotation at run time


class Consumer(worker.Counting):
    """One FastStream application that consumes one topic."""

    def __init__(self) -> None:
        super().__init__()
        self._broker: NatsBroker | None = None

    async def start(self, url: str, topic: str, mode: str) -> None:
        """Consume `topic`; `mode` is push or pull, the two ways FastStream has."""
        broker = NatsBroker(url, logger=None)
        pull: Any = PullSub(batch_size=256) if mode == "pull" else False
        # More unacknowledged messages than the server's default of 1,000: push gains from it now and then, pull never.
        config = ConsumerConfig(max_ack_pending=10_000) if mode == "push" else None
        subscriber = broker.subscriber(
            topic,
            durable="bench",
            config=config,
            stream=JStream(name=topic, subjects=[topic]),
            pull_sub=pull,
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )

        @subscriber
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
    worker.main({"start": consumer.start, "expect": consumer.expect, "result": consumer.result, "stop": consumer.stop})
