"""What every broker must do: delivery to groups."""

# ruff: noqa: PLR2004 - scenarios assert, and their expected values are plain numbers

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.envelope import Envelope, prefix, render
from linkspan.testing.broker_case import needs, numbers, within
from linkspan.testing.collector import Collector

if TYPE_CHECKING:
    from linkspan.testing.broker_case import Suite


__all__ = ["DeliveryScenarios"]


class DeliveryScenarios:
    """Who gets what, in which order."""

    async def test_published_message_is_delivered(self: Suite) -> None:
        """What was confirmed is delivered, with its topic."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=10)

            await within(broker.publish(case.message("hello")))

            (delivery,) = await got.count(1)
            assert (delivery.topic, delivery.data, delivery.attempt) == (case.topic, b"hello", 1)

    async def test_headers_and_id_survive(self: Suite) -> None:
        """The canonical block arrives byte for byte, with the sequence behind it and nothing in front."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            envelope = Envelope(
                "i d%20", "src", "suite.Happened", key='k"ü', trace="00-1-2-01", time="2026-01-01T00:00:00.000Z", correlation=""
            )
            block = render(prefix("suite.Happened", "a source"), envelope)

            await case.send(broker, [case.message("a", headers=block, id="i d%20"), case.message("b", headers=block, sequence=41)])

            first, second = await got.count(2)
            assert first.headers == block
            assert second.headers == block + b"ce-sequence: 41\r\n"

    async def test_order_is_stream_order(self: Suite) -> None:
        """Messages published one after the other, all in flight, are stored and delivered in that order."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=64)

            await case.send(broker, case.messages(0, 500))

            await got.count(500)
            assert got.data == numbers(0, 500)

    async def test_groups_repeat(self: Suite) -> None:
        """Each group gets every message."""
        async with self.case() as case:
            broker, one, two = await case.broker("one", "two"), Collector(ack=True), Collector(ack=True)
            await broker.subscribe(case.topic, "one", one, prefetch=10)
            await broker.subscribe(case.topic, "two", two, prefetch=10)

            await case.send(broker, case.messages(0, 20))

            await one.count(20)
            await two.count(20)
            assert one.data == two.data == numbers(0, 20)

    async def test_group_members_split(self: Suite) -> None:
        """Two instances of a group share the lanes, no message goes to both."""
        async with self.case() as case:
            first, second, one, two = await case.broker("g"), await case.broker("g"), Collector(ack=True), Collector(ack=True)
            one.shares_with(two)
            await first.subscribe(case.topic, "g", one, prefetch=5)
            await second.subscribe(case.topic, "g", two, prefetch=5)

            await case.send(first, case.messages(0, 200, lanes=64))

            await one.until(lambda: len(one.data) + len(two.data) >= 200, "200 deliveries to both")
            assert sorted(one.data + two.data) == sorted(numbers(0, 200))
            assert one.data
            assert two.data

    async def test_slow_group_holds_nobody_up(self: Suite) -> None:
        """A group that settles nothing does not hold up another one, and gets no more than its prefetch."""
        async with self.case() as case:
            broker, slow, fast = await case.broker("slow", "fast"), Collector(), Collector(ack=True)
            await broker.subscribe(case.topic, "slow", slow, prefetch=3)
            await broker.subscribe(case.topic, "fast", fast, prefetch=10)

            await case.send(broker, case.messages(0, 100))

            await fast.count(100)
            await slow.count(3)
            assert slow.data == numbers(0, 3)

    async def test_prefetch_bounds_what_is_in_hand(self: Suite) -> None:
        """Never more than `prefetch` unsettled; each settled one makes room."""
        async with self.case() as case:
            broker, got, seen = await case.broker("g", "marker"), Collector(), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=4)
            await broker.subscribe(case.topic, "marker", seen, prefetch=50)
            await case.send(broker, case.messages(0, 20))
            await seen.count(20)
            await got.count(4)

            most = 0
            for settled in range(20):
                most = max(most, len(got.deliveries) - settled)
                (await got.count(settled + 1))[settled].ack()

            assert most <= 4
            assert got.data == numbers(0, 20)

    async def test_bound_changes_while_messages_flow(self: Suite) -> None:
        """A larger bound takes more at once; below a smaller one nothing comes until so many are settled."""
        async with self.case() as case:
            broker, got, seen = await case.broker("g", "marker"), Collector(), Collector(ack=True)
            subscription = await broker.subscribe(case.topic, "g", got, prefetch=4)
            await broker.subscribe(case.topic, "marker", seen, prefetch=50)
            await case.send(broker, case.messages(0, 20))
            await seen.count(20)
            await got.count(4)
            subscription.bound(8)
            deliveries = await got.count(8)
            subscription.bound(2)
            for delivery in deliveries[:7]:
                delivery.ack()
            await got.count(9)
            await case.send(broker, case.messages(20, 40))
            await seen.count(40)

            assert len(got.deliveries) == 9
            for settled in range(7, 40):
                (await got.count(settled + 1))[settled].ack()
            assert got.data == numbers(0, 40)
            assert subscription.patience > 0

    async def test_prefetch_of_one_keeps_moving(self: Suite) -> None:
        """The smallest prefetch delivers one by one."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=1)

            await case.send(broker, case.messages(0, 30))

            await got.count(30)
            assert got.data == numbers(0, 30)

    async def test_topics_are_isolated(self: Suite) -> None:
        """A group gets messages of its topic only, also where one topic's name begins with another's."""
        async with self.case() as case:
            other = f"{case.topic}2"
            broker, got, rest = await case.broker("g"), Collector(ack=True), Collector(ack=True)
            await broker.declare([other], [(other, "g")])
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            await broker.subscribe(other, "g", rest, prefetch=10)

            await case.send(broker, [case.message("here"), case.message("there", topic=other), case.message("last")])

            await got.count(2)
            await rest.count(1)
            assert (got.data, rest.data) == ([b"here", b"last"], [b"there"])

    @needs("history")
    async def test_new_group_gets_history(self: Suite) -> None:
        """A group declared later starts at the first stored message."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await case.send(broker, case.messages(0, 10))

            await broker.declare([], [(case.topic, "late")])
            await broker.subscribe(case.topic, "late", got, prefetch=10)

            await got.count(10)
            assert got.data == numbers(0, 10)

    @needs("foreign")
    async def test_foreign_messages_are_delivered(self: Suite) -> None:
        """Messages of publishers that know nothing of linkspan arrive as they are, and nothing behind them is lost."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            huge = b"X-Big: " + b"x" * 60_000 + b"\r\n"
            blocks = [b"", b"X-Name: value\r\nce-id: 1\r\n", b"content-type: application/cloudevents+json\r\n", huge]

            for block in blocks:
                await self.publish_foreign(case.topic, block, b'{"specversion":"1.0"}')
            await within(broker.publish(case.message("ours")))

            deliveries = await got.count(5)
            assert [delivery.headers for delivery in deliveries[:4]] == blocks
            assert [delivery.data for delivery in deliveries] == [b'{"specversion":"1.0"}'] * 4 + [b"ours"]
