"""What a store that several processes share promises: who has which lane, whose commits count, and the sequence of each key."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from linkspan.errors import Code
from linkspan.ports import OUTBOX, LetterState, Outcome
from linkspan.runtime import system
from linkspan.testing.collector import PATIENCE
from linkspan.testing.store_probe import (
    INSERT,
    NOTHING,
    SCRIPTS,
    Settled,
    StoreScenarios,
    effects,
    expect,
    letter,
    message,
    opened,
    refused,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from pathlib import Path
    from typing import Any

    from linkspan.ports import Store, Tenure, Unit

__all__ = ["LANES", "SharedScenarios"]

LANES = 64
LEASE = 60.0
SHORT = 0.2
MARK = ("shop<orders", "shop.events", "k")


class SharedScenarios(StoreScenarios):
    """Lanes, fences, marks; for stores that are `shared`."""

    @asynccontextmanager
    async def two(self, place: Path) -> AsyncGenerator[tuple[Store, Store]]:
        """Open one place twice, as two processes do."""
        async with self.store(place) as first:
            second = self.make_store(place, system())
            await second.open()
            try:
                await second.migrate(SCRIPTS)
                yield first, second
            finally:
                await second.aclose()

    # --- who has what

    async def test_only_member_has_every_lane(self, tmp_path: Path) -> None:
        """A member that is alone gets all lanes at once, and keeps them and their epochs as long as it shows signs of life."""
        async with self.store(tmp_path) as store:
            expect(store.shared, True, "several processes may have it")
            tenure = await store.hold_lanes("orders", "a", keep=None, lease=LEASE)
            expect((sorted(tenure.lanes), tenure.share, tenure.members), (list(range(LANES)), LANES, 1), "it has them all")
            again = await store.hold_lanes("orders", "a", keep=None, lease=LEASE)
            expect(again, tenure, "nothing changes while it lives")
            other = await store.hold_lanes("mail", "a", keep=None, lease=LEASE)
            expect(len(other.lanes), LANES, "each service has lanes of its own")

    async def test_lanes_are_taken_when_they_are_given_up(self, tmp_path: Path) -> None:
        """A newcomer gets nothing that another has, until that gives it up; then with a new epoch."""
        async with self.two(tmp_path) as (first, second):
            before = await first.hold_lanes("orders", "a", keep=None, lease=LEASE)
            newcomer = await second.hold_lanes("orders", "b", keep=None, lease=LEASE)
            expect((len(newcomer.lanes), newcomer.share, newcomer.members), (0, 32, 2), "nothing is free yet")
            kept = await first.hold_lanes("orders", "a", keep=range(32), lease=LEASE)
            expect((sorted(kept.lanes), kept.share), (list(range(32)), 32), "it keeps what it named")
            gained = await second.hold_lanes("orders", "b", keep=None, lease=LEASE)
            expect(sorted(gained.lanes), list(range(32, 64)), "the newcomer has the rest")
            expect(len(gained.orphaned), 0, "nobody has died")
            expect(
                all(epoch > before.lanes[lane] for lane, epoch in gained.lanes.items()), True, "the epoch of a lane that moved has grown"
            )
            expect(all(epoch == before.lanes[lane] for lane, epoch in kept.lanes.items()), True, "the others have theirs")

    async def test_shares_differ_by_one_at_most(self, tmp_path: Path) -> None:
        """Whatever the number of members, all lanes end up with somebody, no lane with two, and shares differ by one at most."""
        async with self.store(tmp_path) as store:
            members: list[str] = []
            for count in (1, 2, 3, 5, 7, 16):
                members += [f"m{number:02}" for number in range(len(members), count)]
                tenures = await _settled(store, members)
                lanes = [lane for tenure in tenures for lane in tenure.lanes]
                expect(sorted(lanes), list(range(LANES)), f"{count} members have every lane once")
                sizes = [len(tenure.lanes) for tenure in tenures]
                expect(max(sizes) - min(sizes) <= 1, True, f"{count} members have fair shares, {sizes}")

    async def test_lanes_of_a_silent_member_are_taken(self, tmp_path: Path) -> None:
        """When the lease of a member ends without a sign of life, others take its lanes; if it comes back it has what is free then."""
        async with self.two(tmp_path) as (first, second):
            silent = await first.hold_lanes("orders", "a", keep=None, lease=SHORT)
            taken = await _until(lambda: second.hold_lanes("orders", "b", keep=None, lease=LEASE), lambda found: len(found.lanes) == LANES)
            expect(taken.members, 1, "the silent one is no member any more")
            expect(len(taken.orphaned), LANES, "they are told apart from lanes that were given up")
            expect(all(epoch > silent.lanes[lane] for lane, epoch in taken.lanes.items()), True, "every epoch has grown")
            back = await first.hold_lanes("orders", "a", keep=None, lease=LEASE)
            expect((len(back.lanes), back.members), (0, 2), "it has nothing and waits for its share")

    async def test_leaving_frees_lanes_at_once(self, tmp_path: Path) -> None:
        """Who leaves leaves its lanes to the others without any wait, and may do so twice."""
        async with self.two(tmp_path) as (first, second):
            await first.hold_lanes("orders", "a", keep=None, lease=LEASE)
            await first.leave_lanes("orders", "a")
            await first.leave_lanes("orders", "a")
            tenure = await second.hold_lanes("orders", "b", keep=None, lease=LEASE)
            expect((len(tenure.lanes), tenure.members), (LANES, 1), "all are free")

    # --- whose commits count

    async def test_commit_of_an_earlier_owner_is_refused(self, tmp_path: Path) -> None:
        """Once a lane has moved, units with its former epoch end as MOVED and write nothing; their neighbours are not touched."""
        done = Settled()
        async with self.two(tmp_path) as (first, second):
            old = await first.hold_lanes("orders", "a", keep=None, lease=LEASE)
            mine = _guarded(done, "1", ("orders", 5, old.lanes[5]))
            expect(await done.submit(first, mine), [Outcome.COMMITTED], "the owner commits")
            await first.hold_lanes("orders", "a", keep=set(range(LANES)) - {5}, lease=LEASE)
            await second.hold_lanes("orders", "b", keep=None, lease=LEASE)
            units = [
                _guarded(done, "2", ("orders", 5, old.lanes[5])),
                _guarded(done, "3", ("orders", 6, old.lanes[6])),
                _guarded(done, "4", None),
            ]
            expect(await done.submit(first, *units), [Outcome.MOVED, Outcome.COMMITTED, Outcome.COMMITTED], "only the lane that moved")
            expect(await effects(first), ["1", "3", "4"], "it wrote nothing")
            expect([each.id for each in await first.unsent(0, 10)], ["1", "3", "4"], "it sends nothing")
            again = _guarded(done, "2", None)
            expect(await done.submit(second, again), [Outcome.COMMITTED], "it claimed nothing")

    async def test_session_of_an_earlier_owner_is_refused(self, tmp_path: Path) -> None:
        """An interactive transaction that is open while its lane moves comes to nothing, and does not hold the taking up."""
        done = Settled()
        async with self.two(tmp_path) as (first, second):
            old = await first.hold_lanes("orders", "a", keep=None, lease=SHORT)
            unit = _guarded(done, "1", ("orders", 5, old.lanes[5]))
            session = await opened(first.begin(unit, NOTHING))
            await _until(lambda: second.hold_lanes("orders", "b", keep=None, lease=LEASE), lambda found: len(found.lanes) == LANES)
            await refused(session.commit(), Code.ABORTED, "the lane is another's")
            expect((unit.outcome, len(await effects(second))), (Outcome.MOVED, 0), "nothing of it is there")

    # --- the sequence of a key

    async def test_mark_lets_each_number_in_once(self, tmp_path: Path) -> None:
        """A key without a mark takes any number; from there each next one commits, a former one is a duplicate, in a group and after it."""
        done = Settled()
        async with self.store(tmp_path) as store:
            outcomes = await done.submit(store, *[_marked(done, f"a{number}", number) for number in (7, 8, 9, 9, 8, 10)])
            kept = [Outcome.COMMITTED] * 3 + [Outcome.DUPLICATE] * 2 + [Outcome.COMMITTED]
            expect(outcomes, kept, "7 to 10, once each")
        async with self.store(tmp_path) as store:
            outcomes = await done.submit(store, _marked(done, "b10", 10), _marked(done, "b11", 11), _marked(done, "c1", 1, key="other"))
            expect(outcomes, [Outcome.DUPLICATE, Outcome.COMMITTED, Outcome.COMMITTED], "marks survive, each key has its own")
            expect(len(await effects(store)), 6, "duplicates have no effect")

    async def test_gap_writes_nothing(self, tmp_path: Path) -> None:
        """A number above the next one ends as GAP and leaves everything as it was: mark, inbox, tables, outbox."""
        done = Settled()
        async with self.store(tmp_path) as store:
            expect(await done.submit(store, _marked(done, "1", 1)), [Outcome.COMMITTED], "the first")
            units = [_marked(done, "3", 3), _marked(done, "4", 4), _marked(done, "2", 2)]
            expect(await done.submit(store, *units), [Outcome.GAP, Outcome.GAP, Outcome.COMMITTED], "2 is missing for 3 and 4")
            expect(await effects(store), ["1", "2"], "a gap has no effect")
            outcomes = await done.submit(store, _marked(done, "3", 3), _marked(done, "4", 4))
            expect(outcomes, [Outcome.COMMITTED, Outcome.COMMITTED], "they follow once 2 is there")

    async def test_gap_can_be_taken_as_it_is(self, tmp_path: Path) -> None:
        """With `skip_gap` the mark moves up over what is missing; what comes late is a duplicate from then on."""
        done = Settled()
        async with self.store(tmp_path) as store:
            skipping = _marked(done, "5", 5)
            skipping.skip_gap = True
            units = [_marked(done, "1", 1), skipping, _marked(done, "6", 6), _marked(done, "2", 2)]
            kept = [Outcome.COMMITTED] * 3 + [Outcome.DUPLICATE]
            expect(await done.submit(store, *units), kept, "5 is accepted behind 1")

    async def test_failed_unit_moves_no_mark(self, tmp_path: Path) -> None:
        """A unit that fails leaves the mark; its number can come again."""
        done = Settled()
        async with self.store(tmp_path) as store:
            broken = _marked(done, "x", 1)
            broken.statements.append((INSERT, ("x", 2)))
            expect(await done.submit(store, broken), [Outcome.FAILED], "it breaks a constraint")
            expect(await done.submit(store, _marked(done, "1", 1), _marked(done, "2", 2)), [Outcome.COMMITTED] * 2, "1 and 2 follow")

    async def test_known_message_moves_the_mark(self, tmp_path: Path) -> None:
        """A message that was handled is behind the mark under whatever number it comes: what follows it does not wait for it."""
        done = Settled()
        async with self.store(tmp_path) as store:
            expect(await done.submit(store, _marked(done, "1", 1)), [Outcome.COMMITTED], "the first")
            expect(await done.submit(store, _marked(done, "1", 2)), [Outcome.DUPLICATE], "it was handled")
            expect(await done.submit(store, _marked(done, "3", 3)), [Outcome.COMMITTED], "nothing is missing before it")

    async def test_mark_of_a_session(self, tmp_path: Path) -> None:
        """An interactive transaction is held to the sequence as well, and moves the mark."""
        done = Settled()
        async with self.store(tmp_path) as store:
            expect(await done.submit(store, _marked(done, "1", 1)), [Outcome.COMMITTED], "the first")
            early, known = _marked(done, "3", 3), _marked(done, "0", 1)
            for unit, outcome in ((early, Outcome.GAP), (known, Outcome.DUPLICATE)):
                session = await opened(store.begin(unit, NOTHING))
                await refused(session.commit(), Code.ABORTED, "3 has to wait for 2, and 1 was there")
                expect(unit.outcome, outcome, "the outcome says why")
            session = await opened(store.begin(_marked(done, "2", 2), NOTHING))
            await session.commit()
            expect(await done.submit(store, _marked(done, "3", 3)), [Outcome.COMMITTED], "then it follows")

    # --- by lanes

    async def test_rows_and_letters_are_found_by_lane(self, tmp_path: Path) -> None:
        """Who asks for some lanes gets the outbox rows and held letters of these, in order, and no others."""
        done = Settled()
        async with self.store(tmp_path) as store:
            messages = [message(f"m{number}", f"k{number}") for number in range(6)]
            for number, each in enumerate(messages):
                each.lane = number % 3
            unit = done.unit(messages=messages)
            for number in range(6):
                store.add_letter(unit, replace(letter(f"l{number}", f"k{number}", LetterState.WAITING), lane=number % 3))
            expect(await done.submit(store, unit), [Outcome.COMMITTED], "all are written")
            expect([each.id for each in await store.unsent(0, 10, {0, 2})], ["m0", "m2", "m3", "m5"], "rows of lanes 0 and 2")
            expect([each.id for each in await store.unsent(0, 2, {0, 2})], ["m0", "m2"], "the first two of them")
            expect({key for _, key in await store.held_keys({1})}, {"k1", "k4"}, "keys of lane 1")
            found = await store.heads(0.0, 10, {1, 2})
            expect([(each.id, each.lane) for each in found], [("l1", 1), ("l2", 2), ("l4", 1), ("l5", 2)], "letters of lanes 1 and 2")
            expect((len(await store.held_keys(())), len(await store.heads(0.0, 10, ()))), (0, 0), "no lanes, nothing")

    async def test_due_letters_are_found_by_lane(self, tmp_path: Path) -> None:
        """Who asks for some lanes gets what is due or redriven in these, the first of its key, and nothing of other services."""
        done = Settled()
        async with self.store(tmp_path) as store:
            unit = done.unit()
            for number in range(6):
                state = LetterState.REDRIVE if number % 2 else LetterState.PARKED
                held = replace(letter(f"l{number}", f"k{number}", state, 5.0), topic="shop:shop.events", lane=number % 3)
                store.add_letter(unit, held)
                store.add_letter(unit, replace(held, id=f"behind {number}"))
                store.add_letter(unit, replace(held, id=f"mail {number}", topic="mail:shop.events"))
            expect(await done.submit(store, unit), [Outcome.COMMITTED], "all are written")
            expect([key for _, key, _ in await store.due_letters("shop", 9.0, 10)], [f"k{number}" for number in range(6)], "all lanes")
            expect([key for _, key, _ in await store.due_letters("shop", 9.0, 10, {0, 2})], ["k0", "k2", "k3", "k5"], "lanes 0 and 2")
            expect([key for _, key, _ in await store.due_letters("shop", 1.0, 10, {0, 2})], ["k3", "k5"], "the redriven ones of these")
            expect([key for _, key, _ in await store.due_letters("shop", 9.0, 3, {0, 2})], ["k0", "k2", "k3"], "bounded")
            expect(await store.due_letters("shop", 9.0, 10, ()), [], "no lanes, nothing")

    async def test_rows_of_anothers_lanes_wake_it(self, tmp_path: Path) -> None:
        """A commit of rows that another process relays wakes that process."""
        done, woken = Settled(), asyncio.Event()
        async with self.two(tmp_path) as (first, second):
            first.on_wake(woken.set)
            await first.hold_lanes(OUTBOX, "a", keep=None, lease=LEASE)
            await second.hold_lanes(OUTBOX, "b", keep=None, lease=LEASE)
            await asyncio.wait([asyncio.ensure_future(woken.wait())], timeout=1.0)  # a store may wake whoever begins to listen
            woken.clear()
            async with asyncio.timeout(PATIENCE):
                while not woken.is_set():  # a wake-up may be lost while the other is only beginning to listen
                    await done.submit(second, done.unit(messages=[message("m")]))
                    await asyncio.wait([asyncio.ensure_future(woken.wait())], timeout=0.2)


def _guarded(done: Settled, name: str, fence: tuple[str, int, int] | None) -> Unit:
    """Return a unit with an effect, a message and a claim."""
    unit = done.unit(("orders", name), [(INSERT, (name, 1))], [message(name)])
    unit.fence = fence
    return unit


def _marked(done: Settled, name: str, number: int, key: str = "k") -> Unit:
    unit = _guarded(done, name, None)
    unit.mark = (*MARK[:2], key, number)
    return unit


async def _settled(store: Store, members: list[str]) -> list[Tenure]:
    """Let members give up what is too much and take what is free, until nothing changes."""
    found: dict[str, Tenure] = {}
    for _ in range(4):
        for name in members:
            tenure = await store.hold_lanes("orders", name, keep=None, lease=LEASE)
            keep = sorted(tenure.lanes)[: tenure.share]
            found[name] = await store.hold_lanes("orders", name, keep=keep, lease=LEASE)
    return [found[name] for name in members]


async def _until(ask: Callable[[], Coroutine[Any, Any, Tenure]], true: Callable[[Tenure], bool]) -> Tenure:
    """Ask again and again: the lease runs on the store's clock."""
    async with asyncio.timeout(PATIENCE):
        while not true(found := await ask()):
            await system().clock.sleep(0.02)
    return found
