"""Who works on which lane: instances on one ledger, in the time of a fake clock; a lane is never worked on twice."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from linkspan.errors import Code, Error
from linkspan.lanes import LEASE, Lanes
from linkspan.ports import Runtime, Tenure
from linkspan.testing.clock import FakeClock, fake_runtime, settle

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from linkspan.lanes import Fence


class Ledger:
    """What a shared store does with lanes, on the fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.members: dict[str, float] = {}
        self.lanes: dict[int, tuple[str, int]] = dict.fromkeys(range(64), ("", 0))
        self.deaf: set[str] = set()
        self.slow = 0.0

    async def hold_lanes(self, _service: str, instance: str, *, keep: Collection[int] | None, lease: float) -> Tenure:
        if instance in self.deaf:
            raise Error(Code.UNAVAILABLE, "The network is cut.")
        now = self.clock.monotonic()
        self.members = {name: until for name, until in self.members.items() if until > now} | {instance: now + lease}
        for lane, (owner, epoch) in self.lanes.items():
            if owner not in self.members or (owner == instance and keep is not None and lane not in keep):
                self.lanes[lane] = ("", epoch)
        each, over = divmod(64, len(self.members))
        share = each + (sorted(self.members).index(instance) < over)
        mine = {lane: epoch for lane, (owner, epoch) in self.lanes.items() if owner == instance}
        for lane, (owner, epoch) in self.lanes.items():
            if not owner and len(mine) < share:
                self.lanes[lane] = (instance, epoch + 1)
                mine[lane] = epoch + 1
        members = len(self.members)
        if self.slow:
            await self.clock.sleep(self.slow)  # the answer is on its way
        return Tenure(mine, share, members)

    async def leave_lanes(self, _service: str, instance: str) -> None:
        if instance in self.deaf:
            raise Error(Code.UNAVAILABLE, "The network is cut.")
        self.members.pop(instance, None)
        self.lanes = {lane: ("" if owner == instance else owner, epoch) for lane, (owner, epoch) in self.lanes.items()}


class Instance:
    """Notes which lanes it works on; what it gives up takes it a while to finish."""

    def __init__(self, ledger: Ledger, runtime: Runtime, name: str, finishing: float = 0.0) -> None:
        self.name, self.finishing, self.clock = name, finishing, runtime.clock
        self.working: set[int] = set()
        self.refuses = False
        self.beginning = 0.0
        self.wary = 0
        store: Any = ledger
        self.lanes = Lanes(store, "orders", name, runtime, self)

    async def gain(self, fences: Mapping[int, Fence]) -> None:
        if self.refuses:
            raise Error(Code.UNAVAILABLE, "The broker is away.")
        if self.beginning:
            await self.clock.sleep(self.beginning)
        self.working |= set(fences)

    def beware(self) -> None:
        self.wary += 1

    def lose(self, lanes: Collection[int]) -> None:
        self.working -= set(lanes)

    async def give_up(self, lanes: Collection[int]) -> None:
        if self.finishing:
            await self.clock.sleep(self.finishing)
        self.working -= set(lanes)


class Fleet:
    def __init__(self, seed: int = 1) -> None:
        self.runtime, self.clock = fake_runtime(seed)
        self.ledger = Ledger(self.clock)
        self.instances: dict[str, Instance] = {}

    async def start(self, name: str, finishing: float = 0.0) -> Instance:
        found = self.instances[name] = Instance(self.ledger, self.runtime, name, finishing)
        await found.lanes.start()
        return found

    async def advance(self, seconds: float) -> None:
        """Move on in small steps; at none of them two work on one lane."""
        for _ in range(round(seconds / 0.25)):
            await self.clock.advance(0.25)
            working = [lane for instance in self.instances.values() for lane in instance.working]
            assert len(working) == len(set(working)), "a lane is worked on twice"

    def sizes(self) -> list[int]:
        return sorted(len(instance.working) for instance in self.instances.values())

    async def end(self) -> None:
        for instance in self.instances.values():
            await instance.lanes.aclose()


async def test_instances_come_to_even_shares_and_finish_what_they_give_up_first() -> None:
    fleet = Fleet()
    await fleet.start("a", finishing=3.0)
    assert fleet.sizes() == [64]
    await fleet.start("b")
    await fleet.advance(4)
    assert fleet.sizes() == [0, 64]
    await fleet.advance(3)
    assert fleet.sizes() == [32, 32]
    await fleet.start("c")
    await fleet.advance(10)
    assert fleet.sizes() == [21, 21, 22]
    await fleet.end()


@pytest.mark.parametrize("finishing", [3.0, 3.25, 3.5, 3.75, 4.0])
async def test_lanes_are_left_whenever_they_are_finished_however_slow_the_store_is(finishing: float) -> None:
    """What was finished while the store was being asked was never left: nobody worked on it again."""
    fleet = Fleet()
    await fleet.start("a", finishing=finishing)
    await fleet.start("b")
    fleet.ledger.slow = 0.5
    await fleet.advance(12)
    assert fleet.sizes() == [32, 32]
    await fleet.end()


async def test_lanes_of_one_that_ends_are_worked_on_at_the_next_beat() -> None:
    fleet = Fleet()
    await fleet.start("a")
    await fleet.start("b")
    await fleet.advance(6)
    await fleet.instances.pop("a").lanes.aclose()
    await fleet.advance(2)
    assert fleet.sizes() == [64]
    await fleet.end()


async def test_instance_that_reaches_no_store_stops_before_another_begins() -> None:
    fleet = Fleet()
    await fleet.start("a")
    await fleet.start("b")
    await fleet.advance(6)
    fleet.ledger.deaf.add("a")
    await fleet.advance(LEASE + 0.5)
    assert not fleet.instances["a"].working
    await fleet.advance(3)
    assert fleet.sizes() == [0, 64]
    fleet.ledger.deaf.clear()
    await fleet.advance(6)
    assert fleet.sizes() == [32, 32]
    await fleet.end()


async def test_lanes_that_lapsed_come_back_with_another_epoch() -> None:
    """With the old one, a letter whose commit was still under way became true after the held keys had been read: nobody ran it."""
    fleet = Fleet()
    a = await fleet.start("a")
    before = dict(a.lanes.held)
    fleet.ledger.deaf.add("a")
    await fleet.advance(LEASE + 0.5)
    assert not a.working
    fleet.ledger.deaf.clear()
    await fleet.advance(3)
    assert len(a.working) == 64
    assert all(epoch > before[lane] for lane, epoch in a.lanes.held.items())
    await fleet.end()


async def test_lanes_that_lapse_while_the_store_is_asked_come_back_with_another_epoch() -> None:
    fleet = Fleet()
    a = await fleet.start("a")
    before = dict(a.lanes.held)
    fleet.ledger.deaf.add("a")
    await fleet.advance(LEASE - 1.0)
    fleet.ledger.deaf.clear()
    fleet.ledger.slow = 2.0
    await fleet.advance(4)
    fleet.ledger.slow = 0.0
    await fleet.advance(4)
    assert len(a.working) == 64
    assert all(epoch > before[lane] for lane, epoch in a.lanes.held.items())
    await fleet.end()


async def test_lane_that_a_commit_says_has_moved_is_dropped_at_once() -> None:
    fleet = Fleet()
    a = await fleet.start("a")
    a.lanes.moved(("orders", 5, 0))
    assert 5 in a.working
    fleet.ledger.lanes[5] = ("somebody", 9)
    a.lanes.moved(("orders", 5, 1))
    assert 5 not in a.working
    await fleet.advance(3)
    assert len(a.working) == 64
    assert a.lanes.held[5] == 10
    await fleet.end()


async def test_lanes_that_cannot_be_begun_are_tried_again() -> None:
    fleet = Fleet()
    a = Instance(fleet.ledger, fleet.runtime, "a")
    fleet.instances["a"] = a
    a.refuses = True
    await a.lanes.start()
    assert not a.working
    a.refuses = False
    await fleet.advance(1)
    assert len(a.working) == 64
    await fleet.end()


async def test_lanes_are_begun_however_long_it_takes_and_signs_of_life_go_on() -> None:
    """It was cut off every three seconds, and begun again from the start: on a loaded machine nothing was ever read."""
    fleet = Fleet()
    a = fleet.instances["a"] = Instance(fleet.ledger, fleet.runtime, "a")
    a.beginning = 2 * LEASE
    starting = asyncio.create_task(a.lanes.start())
    await fleet.advance(LEASE)
    assert not a.working
    assert a.lanes.alive
    await fleet.advance(LEASE + 1.0)
    await starting
    assert len(a.working) == 64
    assert set(a.lanes.held.values()) == {1}
    await fleet.end()


async def test_lanes_that_are_lost_while_they_are_begun_are_not_worked_on() -> None:
    fleet = Fleet()
    a = fleet.instances["a"] = Instance(fleet.ledger, fleet.runtime, "a")
    a.beginning = 2.0
    starting = asyncio.create_task(a.lanes.start())
    await fleet.advance(1.0)
    fleet.ledger.deaf.add("a")
    fleet.ledger.members["b"] = fleet.clock.monotonic() + 1000.0
    fleet.ledger.lanes = {lane: ("b", epoch + 1) if lane < 32 else (owner, epoch) for lane, (owner, epoch) in fleet.ledger.lanes.items()}
    fleet.ledger.deaf.clear()
    await fleet.advance(6.0)
    await starting
    assert a.working == set(range(32, 64))
    await fleet.end()


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_no_lane_is_worked_on_twice_and_all_are_in_the_end(seed: int) -> None:
    fleet, chance = Fleet(seed), random.Random(seed)
    for number in range(60):
        what = chance.random()
        names = sorted(fleet.instances)
        if what < 0.3 and len(names) < 8:
            await fleet.start(f"{chance.randrange(1000)}-{number}", finishing=chance.choice((0.0, 0.5, 7.0)))
        elif what < 0.5 and names:
            fleet.ledger.deaf ^= {chance.choice(names)}
        elif what < 0.6 and names:
            await fleet.instances.pop(chance.choice(names)).lanes.aclose()
        await fleet.advance(chance.choice((0.25, 1.0, 3.0)))
    fleet.ledger.deaf.clear()
    await (fleet.start("last") if not fleet.instances else settle())
    await fleet.advance(40)
    assert sum(fleet.sizes()) == 64
    assert max(fleet.sizes()) - min(fleet.sizes()) <= 1
    await fleet.end()
