"""A redrive of many: at its pace, a canary first, stopped by itself or by a person, and still there after a restart."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from linkspan import Error, Limits
from linkspan.letters.desk import Desk
from linkspan.letters.redrive import Redrive, Redrives
from linkspan.letters.redriving import Tally
from linkspan.ports import LetterState
from linkspan.testing.clock import FakeClock
from tests.unit.durable import Placed, System, note, system, until

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import Context


@dataclass
class Dependency:
    """What the handler needs: broken until it is mended."""

    broken: bool = True
    runs: int = 0

    async def handler(self, ctx: Context, event: Placed) -> None:
        self.runs += 1
        if event.number == 1 and self.broken:
            raise Error.refused("The dependency is broken.")
        await note(ctx, event)


async def dead(run: System, count: int, behind: int = 0) -> None:
    """Make dead letters of as many keys, each with messages behind it."""
    for number in range(1, behind + 2):
        await run.publish(*((f"k{key}", number) for key in range(count)))

    async def held() -> bool:
        return len(await run.store.letters(limit=10_000)) == count * (behind + 1)

    await until(held, "all are held")


async def asked(run: System, **changes: object) -> Redrive:
    given = Redrive("r1", "mail", "", "", 1_000_000, 0, 10.0, 5, 4.0, "ada", "mended", run.clock.now())
    redrive = replace(given, **changes)  # type: ignore[arg-type]  # fields by name
    assert await Redrives(run.store).ask(redrive)
    return redrive


async def passes(run: System, seconds: float, step: float = 0.1) -> None:
    """Let time pass in small steps, and the store's thread keep up."""
    for _ in range(round(seconds / step)):
        await run.clock.advance(step)
        for _ in range(4):
            await run.store.apply([])
            await asyncio.sleep(0)


async def now(run: System) -> Redrive:
    found = await Redrives(run.store).one("r1")
    assert found is not None
    return found


async def test_redrive_goes_at_its_pace_and_ends_as_done(tmp_path: Path) -> None:
    dependency = Dependency()
    async with system(tmp_path, dependency.handler) as run:
        await dead(run, 40)
        dependency.broken, dependency.runs = False, 0
        redrive = await asked(run)
        await passes(run, 2.0)
        early = dependency.runs

        async def done() -> bool:
            await passes(run, 0.5)
            return (await now(run)).state == "done"

        await until(done, "it is done")
        progress = await Redrives(run.store).progress(redrive)
        entries = await Desk(run.store).audit("mail", 1000)

        assert 5 <= early <= 21
        assert len(await run.effects()) == 40
        assert dependency.runs == 40
        assert (progress.taken, progress.handled, progress.failed) == (40, 40, 0)
        assert await run.store.letters() == []
        assert [entry.action for entry in entries].count("redrive") == 41
        assert (entries[0].action, entries[0].who) == ("redrive done", "linkspan")
        assert {(entry.who, entry.why) for entry in entries[1:]} == {("ada", "mended")}


async def test_redrive_stops_by_itself_while_the_dependency_is_broken(tmp_path: Path) -> None:
    dependency = Dependency()
    async with system(tmp_path, dependency.handler) as run:
        await dead(run, 60)
        dependency.runs = 0
        await asked(run, rate=50.0)
        began = run.clock.monotonic()

        async def stopped() -> bool:
            await passes(run, 0.1)
            return (await now(run)).state == "stopped"

        await until(stopped, "it is stopped")

        assert run.clock.monotonic() - began <= 5.0
        assert dependency.runs <= 6
        assert "mend the cause" in (await now(run)).reason
        assert len(await run.store.letters(states=[LetterState.DEAD])) == 60
        assert (await Desk(run.store).audit("mail", 1))[0].action == "redrive stopped"


async def test_letters_behind_go_in_order_and_at_the_same_pace(tmp_path: Path) -> None:
    dependency = Dependency()
    async with system(tmp_path, dependency.handler) as run:
        await dead(run, 3, behind=9)
        dependency.broken, dependency.runs = False, 0
        await asked(run)
        await passes(run, 1.5)
        early = dependency.runs

        async def free() -> bool:
            await passes(run, 0.5)
            return await run.store.letters() == []

        await until(free, "all are handled")

        assert early <= 16
        for key in range(3):
            assert await run.effects(f"select number from effect where key = 'k{key}' order by position") == [(n,) for n in range(1, 11)]


async def test_person_stops_a_redrive(tmp_path: Path) -> None:
    dependency = Dependency()
    async with system(tmp_path, dependency.handler) as run:
        await dead(run, 40)
        dependency.broken, dependency.runs = False, 0
        redrive = await asked(run, rate=5.0)
        await passes(run, 2.0)
        assert await Redrives(run.store).end(redrive, "stopped", who="bob", why="not now", at=9.0)
        await passes(run, 1.5)
        after = dependency.runs
        await passes(run, 5.0)

        assert 0 < after < 40
        assert dependency.runs == after
        assert not await Redrives(run.store).end(redrive, "stopped", who="bob", why="again", at=9.0)
        assert [entry.who for entry in await Desk(run.store).audit("mail") if entry.action == "redrive stopped"] == ["bob"]


async def test_redrive_outlives_a_restart_and_takes_each_letter_once(tmp_path: Path) -> None:
    dependency, clock = Dependency(), FakeClock()
    async with system(tmp_path, dependency.handler, clock=clock) as run:
        log = run.log
        await dead(run, 30)
        dependency.broken, dependency.runs = False, 0
        redrive = await asked(run, rate=5.0)
        await passes(run, 2.0)
    async with system(tmp_path, dependency.handler, clock=clock, log=log) as run:

        async def done() -> bool:
            await passes(run, 1.0)
            return (await now(run)).state == "done"

        await until(done, "it is done")

        assert len(await run.effects()) == 30
        assert dependency.runs == 30
        assert (await Redrives(run.store).progress(redrive)).handled == 30


async def test_one_redrive_of_a_service_at_a_time_and_only_what_was_chosen(tmp_path: Path) -> None:
    dependency = Dependency()
    async with system(tmp_path, dependency.handler) as run:
        await dead(run, 3)
        dependency.broken = False
        first = await asked(run, key="k1")
        assert not await Redrives(run.store).ask(replace(first, id="r2"))

        async def done() -> bool:
            await passes(run, 0.5)
            return (await now(run)).state == "done"

        await until(done, "it is done")

        assert [letter.key for letter in await run.store.letters()] == ["k0", "k2"]


async def test_letter_that_cannot_succeed_fails_alone(tmp_path: Path) -> None:
    """One of fifty is bad still: the others are handled, and it is dead again."""
    dependency = Dependency(broken=False)

    async def handler(ctx: Context, event: Placed) -> None:
        if event.number == 1 and (dependency.broken or event.order == "k7"):
            raise Error.refused("No.")
        await note(ctx, event)

    dependency.broken = True
    async with system(tmp_path, handler, limits=Limits(parked=())) as run:
        await dead(run, 50)
        dependency.broken = False
        redrive = await asked(run, rate=100.0)

        async def done() -> bool:
            await passes(run, 0.5)
            return (await now(run)).state == "done"

        await until(done, "it is done")
        progress = await Redrives(run.store).progress(redrive)

        assert (progress.handled, progress.failed) == (49, 1)
        assert [(letter.key, letter.redrives) for letter in await run.store.letters()] == [("k7", 1)]


async def test_runs_that_hang_count_as_failed() -> None:
    clock = FakeClock()
    tally = Tally(clock, 10.0, 4.0)
    for position in range(4):
        tally.begin(position)
    await clock.advance(3.9)
    assert tally.verdict() == ""
    await clock.advance(0.2)
    assert tally.verdict() == "4 of the last 4 failed, 4 of them still running after 4 s: mend the cause, then redrive again."


async def test_one_failure_in_twenty_is_no_outage() -> None:
    tally = Tally(FakeClock(), 10.0, 4.0)
    for position in range(100):
        tally.begin(position)
        tally.end(position, handled=position % 25 != 0)
        assert tally.verdict() == ""
    for position in (101, 102):
        tally.begin(position)
        tally.end(position, handled=False)
    assert tally.verdict().startswith("2 of the last 20 failed")
