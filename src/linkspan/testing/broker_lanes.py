"""What every broker must do: delivering a group lane by lane, so that several instances can share it and keep the order of each key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.testing.broker_case import needs, numbers, within
from linkspan.testing.collector import Collector

if TYPE_CHECKING:
    from linkspan.ports import Broker, Outgoing
    from linkspan.testing.broker_case import Case, Suite

__all__ = ["LaneScenarios"]

ALL = range(64)


async def _lane_broker(case: Case) -> Broker:
    broker = case.connection()
    await broker.open()
    await within(broker.declare([case.topic], [(case.topic, "g")], lanes=True))
    return broker


def _in_lanes(case: Case, count: int, lanes: list[int], start: int = 0) -> list[Outgoing]:
    """Return messages in turn for these lanes, half of them with dots in their names."""
    names = ("Happened", "Orders.Place")
    return [case.message(str(n), lane=lanes[n % len(lanes)], name=names[n % 3 % 2]) for n in range(start, start + count)]


class LaneScenarios:
    """Lanes of a group, each with a place of its own."""

    @needs("lanes")
    async def test_lanes_deliver_just_theirs_in_order(self: Suite) -> None:
        """Who has some lanes gets their messages, in stream order within each lane, whatever their names; the rest is another's."""
        async with self.case() as case:
            broker, other, some, rest = await _lane_broker(case), await _lane_broker(case), Collector(ack=True), Collector(ack=True)
            await broker.subscribe(case.topic, "g", some, prefetch=10, lanes=[3, 7])
            await other.subscribe(case.topic, "g", rest, prefetch=10, lanes=[lane for lane in ALL if lane not in {3, 7}])

            await case.send(broker, _in_lanes(case, 40, [3, 63, 7, 0]))

            await some.count(20)
            await rest.count(20)
            for got, lanes in ((some, (0, 2)), (rest, (1, 3))):
                assert sorted(got.data) == sorted(data for n, data in enumerate(numbers(0, 40)) if n % 4 in lanes)
                for lane in lanes:
                    assert [data for data in got.data if int(data) % 4 == lane] == numbers(0, 40)[lane::4]

    @needs("lanes")
    async def test_taken_over_lane_redelivers_in_order(self: Suite) -> None:
        """What an instance had in hand of a lane comes first and in order to the next one; what it had settled does not."""
        async with self.case() as case:
            first, second, had, got = await _lane_broker(case), await _lane_broker(case), Collector(), Collector(ack=True)
            subscription = await first.subscribe(case.topic, "g", had, prefetch=10, lanes=[5])
            await case.send(first, _in_lanes(case, 10, [5]))
            for delivery in (await had.count(10))[:4]:
                delivery.ack()
            await within(subscription.stop())
            await case.send(first, _in_lanes(case, 5, [5], start=10))
            await within(first.aclose())  # its acknowledgements are on the server now

            await second.subscribe(case.topic, "g", got, prefetch=10, lanes=[5])

            await got.count(11)
            assert got.data == numbers(4, 15)

    @needs("lanes")
    async def test_giving_one_lane_up_leaves_the_others(self: Suite) -> None:
        """One of several lanes can be stopped and taken elsewhere, while the others go on undisturbed."""
        async with self.case() as case:
            first, second, kept, given, taken = (
                await _lane_broker(case),
                await _lane_broker(case),
                Collector(),
                Collector(),
                Collector(ack=True),
            )
            await first.subscribe(case.topic, "g", kept, prefetch=10, lanes=[1])
            subscription = await first.subscribe(case.topic, "g", given, prefetch=10, lanes=[2])
            await case.send(first, _in_lanes(case, 4, [1, 2]))
            await kept.count(2)
            await given.count(2)

            await within(subscription.stop())
            await second.subscribe(case.topic, "g", taken, prefetch=10, lanes=[2])
            await taken.count(2)
            for delivery in kept.deliveries:
                delivery.ack()
            await case.send(first, _in_lanes(case, 4, [1, 2], start=4))

            await taken.count(4)
            await kept.count(4)
            assert (kept.data, given.data) == ([b"0", b"2", b"4", b"6"], [b"1", b"3"])
            assert taken.data == [b"1", b"3", b"5", b"7"]

    @needs("lanes", "restart", "replay")
    async def test_lanes_go_on_in_order_after_a_restart_of_the_server(self: Suite) -> None:
        """A killed server brings each lane's unsettled messages back in order, before newer ones."""
        async with self.case() as case:
            broker, got = await _lane_broker(case), Collector()
            await broker.subscribe(case.topic, "g", got, prefetch=20, lanes=[4, 9])
            await case.send(broker, _in_lanes(case, 10, [4, 9]))
            await got.count(10)

            await self.restart_server()
            await case.publish_until_stored(broker, _in_lanes(case, 2, [4, 9], start=10))

            await got.all_of({b"10", b"11"})
            for lane in (0, 1):
                again = [data for data in got.data[10:] if int(data) % 2 == lane]
                assert again[:6] == numbers(0, 12)[lane::2]

    @needs("lanes", "history")
    async def test_group_goes_on_lane_by_lane_where_it_stood(self: Suite) -> None:
        """A group that was read as one goes on behind what it had settled when it is read by lanes."""
        async with self.case() as case:
            broker, before, got = await case.broker("g"), Collector(ack=True), Collector(ack=True)
            subscription = await broker.subscribe(case.topic, "g", before, prefetch=10)
            await case.send(broker, _in_lanes(case, 8, [0, 1]))
            await before.count(8)
            await within(subscription.stop())
            await within(broker.aclose())
            broker = await _lane_broker(case)
            await case.send(broker, _in_lanes(case, 4, [0, 1], start=8))

            await broker.subscribe(case.topic, "g", got, prefetch=10, lanes=ALL)

            await got.count(4)
            assert sorted(got.data, key=int) == numbers(8, 12)

    @needs("lanes")
    async def test_lanes_are_declared_once(self: Suite) -> None:
        """Declaring lanes again changes nothing and reports nothing."""
        async with self.case() as case:
            broker, got = await _lane_broker(case), Collector(ack=True)

            assert await within(broker.declare([case.topic], [(case.topic, "g")], lanes=True)) == []
            await broker.subscribe(case.topic, "g", got, prefetch=10, lanes=[0])
            await case.send(broker, _in_lanes(case, 1, [0]))

            await got.count(1)
