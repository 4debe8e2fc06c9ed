"""What every broker must do: declaring, closing, and outages of the server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from linkspan.errors import Code, Error
from linkspan.testing.broker_case import needs, numbers, raises, within
from linkspan.testing.collector import Collector

if TYPE_CHECKING:
    from linkspan.testing.broker_case import Suite


__all__ = ["OutageScenarios"]


class OutageScenarios:
    """Declaring, closing, and servers that die."""

    async def test_declare_is_idempotent(self: Suite) -> None:
        """Declaring what exists changes nothing, keeps messages and places, and reports nothing."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await case.send(broker, case.messages(0, 3))

            assert await broker.declare([case.topic], [(case.topic, "g")]) == []

            await broker.subscribe(case.topic, "g", got, prefetch=10)
            assert await broker.declare([case.topic], [(case.topic, "g")]) == []
            await got.count(3)
            assert got.data == numbers(0, 3)

    @needs("drift")
    async def test_drift_is_reported(self: Suite) -> None:
        """A group that exists with another setting is reported by name, twice the same: it was not overwritten."""
        async with self.case() as case:
            await self.make_drift(case.topic, "g")
            broker = case.connection()
            await broker.open()

            drifts = await broker.declare([case.topic], [(case.topic, "g")])

            assert drifts
            assert all(drift.declared != drift.found for drift in drifts)
            assert await broker.declare([case.topic], [(case.topic, "g")]) == drifts

    async def test_close_is_idempotent(self: Suite) -> None:
        """Closing twice, at once or before opening, is harmless; a closed broker refuses with UNAVAILABLE and can be opened again."""
        async with self.case() as case:
            await within(case.connection().aclose())
            broker = await case.broker("g")
            await broker.subscribe(case.topic, "g", Collector(), prefetch=10)

            await within(asyncio.gather(broker.aclose(), broker.aclose()))
            await within(broker.aclose())
            await raises(Code.UNAVAILABLE, broker.publish(case.message("x")))
            assert not broker.connected

            await broker.open()
            assert broker.connected
            await within(broker.publish(case.message("y")))

    async def test_close_ends_what_is_blocked(self: Suite) -> None:
        """Publishes and batches on their way end with success or UNAVAILABLE (batches: ABORTED) when the broker closes."""
        async with self.case() as case:
            broker = await case.broker("g")
            work = [broker.publish(message) for message in case.messages(0, 50)]
            batch = asyncio.ensure_future(broker.publish_batch(case.messages(0, 100)))
            await asyncio.sleep(0)  # the batch is on its way

            await within(broker.aclose())

            outcomes = await within(asyncio.gather(*work, batch, return_exceptions=True))
            codes = {outcome.code if isinstance(outcome, Error) else outcome for outcome in outcomes}
            assert codes <= {None, Code.UNAVAILABLE, Code.ABORTED}

    async def test_attestation_names_a_level(self: Suite) -> None:
        """The broker says what an acknowledgement is worth."""
        async with self.case() as case:
            found = await (await case.broker()).attest()

            assert found.engine
            assert found.level in {"power", "process", "none"}
            assert found.level == "power" or found.reasons

    @needs("outage")
    async def test_open_without_server_is_unavailable(self: Suite) -> None:
        """Opening fails with UNAVAILABLE while nothing answers, and works afterwards."""
        async with self.case() as case:
            broker = case.connection()
            await self.stop_server()
            await raises(Code.UNAVAILABLE, broker.open())

            await self.start_server()

            await within(broker.open())
            await within(broker.declare([case.topic], []))

    @needs("outage")
    async def test_publish_while_down_is_unavailable(self: Suite) -> None:
        """While the server is away publishes end with UNAVAILABLE; when it is back the same broker goes on."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector(ack=True)
            await broker.subscribe(case.topic, "g", got, prefetch=10)
            message = case.message("late")
            await self.stop_server()
            await raises(Code.UNAVAILABLE, broker.publish(message))
            assert not broker.connected

            await self.start_server()
            await case.publish_until_stored(broker, [message])
            assert broker.connected

            await got.count(1)
            assert got.first_seen() == [b"late"]

    @needs("restart", "replay")
    async def test_restart_brings_unsettled_again_in_order(self: Suite) -> None:
        """After the server was killed everything unsettled comes again, in order, before anything newer."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector()
            await broker.subscribe(case.topic, "g", got, prefetch=20)
            await case.send(broker, case.messages(0, 10))
            await got.count(10)

            await self.restart_server()
            await case.publish_until_stored(broker, case.messages(10, 20))

            await got.count(30)
            assert got.data[10:30] == numbers(0, 20)

    @needs("restart")
    async def test_restart_leaves_the_unsettled_to_who_comes_next(self: Suite) -> None:
        """What was in hand when the server was killed, and was settled afterwards, is done; the rest comes to the next one, in order."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector()
            subscription = await broker.subscribe(case.topic, "g", got, prefetch=20)
            await case.send(broker, case.messages(0, 10))
            await got.count(10)

            await self.restart_server()
            await case.publish_until_stored(broker, case.messages(10, 12))
            await got.all_of(set(numbers(10, 12)))
            for delivery in got.deliveries:
                if delivery.data in numbers(0, 4):
                    delivery.ack()
            await within(subscription.stop())
            await within(broker.aclose())

            second, later = await case.broker("g"), Collector(ack=True)
            await second.subscribe(case.topic, "g", later, prefetch=20)
            await later.all_of(set(numbers(4, 12)))
            assert later.first_seen() == numbers(4, 12)

    @needs("restart")
    async def test_restart_loses_nothing_confirmed(self: Suite) -> None:
        """Killed twice under load: every message that a relay sent is stored (once, where ids are remembered), in the order of arrival."""
        async with self.case() as case:
            publisher, consumer, got = await case.broker("g"), await case.broker("g"), Collector(ack=True)
            await consumer.subscribe(case.topic, "g", got, prefetch=32)
            for start in (0, 300):
                sending = asyncio.ensure_future(case.publish_until_stored(publisher, case.messages(start, start + 300)))
                await got.until(lambda start=start: len(set(got.data)) > start + 20, "the first of them")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                await self.restart_server()
                await within(sending)

            await got.all_of(set(numbers(0, 600)))
            fresh, stored = await case.broker("check"), Collector(ack=True)
            await fresh.subscribe(case.topic, "check", stored, prefetch=100)
            await stored.all_of(set(numbers(0, 600)))
            assert got.first_seen() == stored.first_seen()
            assert len(stored.data) == 600 or not self.capabilities.dedupe  # noqa: PLR2004 - as many as were sent

    @needs("restart")
    async def test_late_settling_after_restart_is_harmless(self: Suite) -> None:
        """Acks and nacks of deliveries from before a restart neither lose a message nor break the order of the new ones."""
        async with self.case() as case:
            broker, got = await case.broker("g"), Collector()
            await broker.subscribe(case.topic, "g", got, prefetch=20)
            await case.send(broker, case.messages(0, 10))
            old = list(await got.count(10))

            await self.restart_server()
            got.ack = True
            for number, delivery in enumerate(old):
                (delivery.nack if number % 2 else delivery.ack)()
            await case.publish_until_stored(broker, case.messages(10, 20))

            await got.all_of(set(numbers(10, 20)))
            again = [int(data) for data in dict.fromkeys(got.data[10:])]
            assert again == sorted(again)
            assert {1, 3, 5, 7, 9} <= set(again)
