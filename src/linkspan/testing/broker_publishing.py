"""What every broker must do: publishing, singly and in batches."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from linkspan.envelope import read
from linkspan.errors import Code
from linkspan.ports import Runtime
from linkspan.testing.broker_case import needs, numbers, raises, within
from linkspan.testing.collector import Collector

if TYPE_CHECKING:
    from linkspan.testing.broker_case import Suite


__all__ = ["PublishingScenarios"]


class PublishingScenarios:
    """What is stored, once, and what is refused."""

    async def test_empty_payload(self: Suite) -> None:
        """A message without data keeps its headers."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            message = case.message(b"")

            await within(broker.publish(message))

            (delivery,) = await got.count(1)
            assert (delivery.data, read(delivery.headers).id) == (b"", message.id)

    async def test_large_payloads(self: Suite) -> None:
        """Messages up to the limit arrive whole, in order, between small ones."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            sizes = [self.capabilities.max_payload - 1000, 1, 300_000, 65_536, 2, 65_535]
            payloads = [bytes([65 + place]) * size for place, size in enumerate(sizes)]

            await case.send(broker, [case.message(payload) for payload in payloads])

            await got.count(len(payloads))
            assert got.data == payloads

    async def test_oversize_is_refused(self: Suite) -> None:
        """A message above the broker's limit fails alone with INVALID_ARGUMENT; the connection and its neighbours live on."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            before, big, after = case.message("before"), case.message(b"x" * (16 << 20)), case.message("after")

            futures = [broker.publish(message) for message in (before, big, after)]

            await raises(Code.INVALID_ARGUMENT, futures[1])
            await raises(Code.INVALID_ARGUMENT, broker.publish_batch([case.message("no"), big]))
            await within(asyncio.gather(futures[0], futures[2]))
            await got.count(2)
            assert got.data == [b"before", b"after"]

    @needs("dedupe")
    async def test_duplicate_id_is_stored_once(self: Suite) -> None:
        """Publishing an id again within the window succeeds and stores nothing."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            message = case.message("once")

            for _ in range(3):
                await within(broker.publish(message))
            await within(broker.publish(case.message("last")))

            await got.count(2)
            assert got.data == [b"once", b"last"]

    @needs("batch")
    async def test_batch_is_stored_in_order(self: Suite) -> None:
        """A batch of up to 1000 arrives whole and in order, headers unchanged."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=500)
            small, large = case.messages(0, 2), case.messages(2, 1002)

            await within(broker.publish_batch(small))
            await within(broker.publish_batch(large))

            deliveries = await got.count(1002)
            assert got.data == numbers(0, 1002)
            assert [delivery.headers for delivery in deliveries] == [message.headers for message in small + large]

    @needs("batch", "dedupe", "atomic")
    async def test_batch_with_known_id_stores_nothing(self: Suite) -> None:
        """A batch that holds an id of a stored message fails with ABORTED, whole; sent singly each is stored once."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            messages = case.messages(0, 5)
            await within(broker.publish(messages[2]))

            await raises(Code.ABORTED, broker.publish_batch(messages))
            await got.count(1)
            await case.send(broker, messages)

            await got.count(5)
            assert got.data == [b"2", b"0", b"1", b"3", b"4"]

    @needs("batch")
    async def test_batch_size_is_checked(self: Suite) -> None:
        """A batch of one, of more than 1000 or of two topics is refused."""
        async with self.case() as case:
            broker = await case.broker()

            await raises(Code.INVALID_ARGUMENT, broker.publish_batch(case.messages(0, 1)))
            await raises(Code.INVALID_ARGUMENT, broker.publish_batch(case.messages(0, 1001)))
            mixed = [case.message("a"), case.message("b", topic=case.new_topic())]
            await raises(Code.INVALID_ARGUMENT, broker.publish_batch(mixed))

    async def test_unknown_topic_is_not_found(self: Suite) -> None:
        """Publishing to and subscribing from what was never declared fails with NOT_FOUND."""
        async with self.case() as case:
            broker = await case.broker()
            unknown = case.new_topic()

            await raises(Code.NOT_FOUND, broker.publish(case.message("x", topic=unknown)))
            await raises(Code.NOT_FOUND, broker.subscribe(unknown, "g", Collector(), prefetch=1))
            await raises(Code.NOT_FOUND, broker.subscribe(case.topic, "unknown", Collector(), prefetch=1))

    async def test_points_are_named(self: Suite) -> None:
        """Every publish, batch, ack and nack passes its named points, so that crash tests can end the process there."""
        passed: list[str] = []
        async with self.case() as case:
            case.runtime = Runtime(case.runtime.clock, case.runtime.random, case.runtime.ids, passed.append)
            broker, got = await case.broker("g"), Collector()
            await broker.subscribe(case.topic, "g", got, prefetch=10)

            await within(broker.publish(case.message("a")))
            (await got.count(1))[0].nack()
            (await got.count(2))[1].ack()
            if self.capabilities.batch:
                await within(broker.publish_batch(case.messages(0, 2)))

        verbs = ["publish", "nack", "ack", *(["batch"] if self.capabilities.batch else [])]
        assert {f"broker.{verb}.{side}" for verb in verbs for side in ("before", "after")} <= set(passed)
