"""What every broker must do: settling deliveries."""

# ruff: noqa: PLR2004 - scenarios assert, and their expected values are plain numbers

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.testing.broker_case import needs, numbers, within
from linkspan.testing.collector import Collector

if TYPE_CHECKING:
    from linkspan.testing.broker_case import Suite


__all__ = ["SettlingScenarios"]


class SettlingScenarios:
    """Acks, nacks, and what comes again."""

    async def test_nack_redelivers(self: Suite) -> None:
        """A message given back comes again, and is settled by a later ack."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector()
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            await within(broker.publish(case.message("again")))

            (await got.count(1))[0].nack()
            (await got.count(2))[1].ack()
            await within(broker.publish(case.message("next")))

            await got.count(3)
            assert got.data == [b"again", b"again", b"next"]

    @needs("delay")
    async def test_nack_redelivers_after_delay(self: Suite) -> None:
        """A delayed nack keeps the message away for at least that long; later messages pass it."""
        async with self.case() as case:
            broker, got, clock = await case.broker("g"), Collector(), case.runtime.clock
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            await case.send(broker, [case.message("a"), case.message("b")])

            first, second = await got.count(2)
            begun = clock.monotonic()
            first.nack(0.3)
            second.ack()
            await got.count(3)

            assert got.data == [b"a", b"b", b"a"]
            assert clock.monotonic() - begun >= 0.295  # timers count in milliseconds

    async def test_attempt_counts_up(self: Suite) -> None:
        """The attempt is 1 at first and grows by one with each delivery to the group."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector()
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            await within(broker.publish(case.message("again")))

            for number in range(4):
                (await got.count(number + 1))[number].nack()

            await got.count(5)
            assert [delivery.attempt for delivery in got.deliveries[:5]] == [1, 2, 3, 4, 5]

    async def test_settling_twice_is_harmless(self: Suite) -> None:
        """Only the first ack or nack of a delivery counts; later ones neither settle nor make room."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector()
            await broker.subscribe(case.topic, "g", got, prefetch=1)
            await case.send(broker, case.messages(0, 6))

            for number in range(12):
                delivery = (await got.count(number + 1))[number]
                first = delivery.nack if delivery.attempt == 1 else delivery.ack
                for settle in (first, delivery.nack, delivery.ack, delivery.beat, delivery.nack):
                    settle()
                assert len(got.deliveries) <= number + 2

            assert sorted(got.data) == [data for data in numbers(0, 6) for _ in range(2)]

    async def test_unsettled_come_again_in_order(self: Suite) -> None:
        """After a stop and a new start everything unsettled comes first, in order, then what is newer."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector()
            subscription = await broker.subscribe(case.topic, "g", got, prefetch=10)
            await case.send(broker, case.messages(0, 10))
            await got.count(10)
            await within(subscription.stop())
            await case.send(broker, case.messages(10, 20))

            later = Collector(ack=True)
            await broker.subscribe(case.topic, "g", later, prefetch=10)

            await later.count(20)
            assert later.data == numbers(0, 20)

    async def test_holes_come_again_in_order(self: Suite) -> None:
        """Settled out of order: every unsettled one comes again, in order, before newer ones."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector()
            subscription = await broker.subscribe(case.topic, "g", got, prefetch=10)
            await case.send(broker, case.messages(0, 8))
            for number, delivery in enumerate(await got.count(8)):
                if number in {0, 1, 4, 6}:
                    delivery.ack()
            await within(subscription.stop())
            await case.send(broker, case.messages(8, 10))

            later = Collector(ack=True)
            await broker.subscribe(case.topic, "g", later, prefetch=10)

            await later.all_of(set(numbers(8, 10)))
            seen = [int(data) for data in later.first_seen()]
            assert seen == sorted(seen)
            assert {2, 3, 5, 7, 8, 9} <= set(seen) <= set(range(2, 10))

    async def test_close_flushes_acks(self: Suite) -> None:
        """What was settled before an orderly close does not come again."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            await case.send(broker, case.messages(0, 50))
            await got.count(50)
            await within(broker.aclose())

            second, later = await case.broker("g"), Collector(ack=True)
            await second.subscribe(case.topic, "g", later, prefetch=10)
            await within(second.publish(case.message("new")))

            await later.count(1)
            assert later.data == [b"new"]

    async def test_settling_after_close_is_harmless(self: Suite) -> None:
        """Ack, nack and beat of a closed broker's deliveries do nothing; the messages come again."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector()
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            await case.send(broker, case.messages(0, 3))
            deliveries = list(await got.count(3))
            await within(broker.aclose())

            deliveries[0].ack()
            deliveries[1].nack(1.0)
            deliveries[2].beat()

            second, later = await case.broker("g"), Collector(ack=True)
            await second.subscribe(case.topic, "g", later, prefetch=10)
            await later.count(3)
            assert later.data == numbers(0, 3)

    async def test_stop_takes_no_more(self: Suite) -> None:
        """After `stop` nothing arrives, what is in hand can be settled, and a second `stop` is harmless."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector()
            subscription = await broker.subscribe(case.topic, "g", got, prefetch=10)
            await case.send(broker, case.messages(0, 2))
            await got.count(2)

            await within(subscription.stop())
            await within(subscription.stop())
            for delivery in got.deliveries:
                delivery.ack()
            await within(broker.publish(case.message("2")))

            later = Collector(ack=True)
            await broker.subscribe(case.topic, "g", later, prefetch=10)
            await later.count(1)
            assert (got.data, later.data) == (numbers(0, 2), [b"2"])

    async def test_stop_among_arrivals_takes_no_more(self: Suite) -> None:
        """Nothing arrives once `stop` has begun, although much is on its way; a later start loses none of it."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector()
            await case.send(broker, case.messages(0, 600))
            subscription = await broker.subscribe(case.topic, "g", got, prefetch=600)
            await got.count(1)

            taken = len(got.deliveries)
            await within(subscription.stop())

            assert len(got.deliveries) == taken
            later = Collector(ack=True)
            await broker.subscribe(case.topic, "g", later, prefetch=600)
            await later.count(600)
            assert later.data == numbers(0, 600)

    async def test_stopped_member_leaves_all_to_the_others(self: Suite) -> None:
        """After one instance of a group stopped, what is published goes to the other one at its first attempt."""
        async with self.case() as case:
            first, second, one, two = await case.broker("g"), await case.broker("g"), Collector(ack=True), Collector(ack=True)
            subscription = await first.subscribe(case.topic, "g", one, prefetch=50)
            await second.subscribe(case.topic, "g", two, prefetch=50)
            await within(subscription.stop())

            await case.send(second, case.messages(0, 40))

            deliveries = await two.count(40)
            assert (one.data, two.data) == ([], numbers(0, 40))
            assert {delivery.attempt for delivery in deliveries} == {1}
