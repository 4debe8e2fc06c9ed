"""Retries: what is tried again, when, and for how long, in simulated time."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Code, Error, Limits
from linkspan.ports import LetterState
from tests.unit.durable import Charge, Payments, Placed, System, note, system, until

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import Context


async def quiet(run: System) -> None:
    """Wait until nothing goes on before time does: all that is in hand waits for its next try."""
    mail, looks = run.app.running["mail"], 0

    async def nothing() -> bool:
        nonlocal looks
        looks += 1
        if looks % 200 == 0:
            await run.clock.advance(0.01)  # what looks for letters may wait as long for a commit
        in_hand = [work for each in mail.consumers for work in each.in_hand]
        resting = any(work.letter for work in in_hand) or not mail.holding.busy
        return resting and not any(work.started for work in in_hand)

    await until(nothing, "quiet")


async def moved(run: System, seconds: float, step: float = 0.05) -> None:
    """Let time pass in steps, each as long as the store's thread needs."""
    end = run.clock.now() + seconds
    while run.clock.now() < end:
        await run.clock.advance(step)
        await quiet(run)


async def states(run: System) -> list[LetterState]:
    return [letter.state for letter in await run.store.letters()]


async def dead(run: System, step: float = 1.0) -> None:
    """Let time pass until something is dead, at most 500 steps."""
    for _ in range(500):
        await run.clock.advance(step)
        await quiet(run)
        if LetterState.DEAD in await states(run):
            return
    raise AssertionError("Nothing died.")


@pytest.mark.parametrize("once", [True, False])
async def test_declared_terminal_exception_is_dead_at_once(tmp_path: Path, *, once: bool) -> None:
    runs: list[int] = []

    async def handler(_ctx: Context, event: Placed) -> None:
        runs.append(event.number)
        raise ValueError(event.number)

    async with system(tmp_path, handler, limits=Limits(terminal=(ValueError,)), once=once) as run:
        await run.publish(("a", 1))
        await until(lambda: run.mail.counts.dead == 1, "dead")
        (letter,) = await run.store.letters()

        assert runs == [1]
        assert (letter.code, letter.attempts) == ("internal", 1)
        assert "ValueError, which no further try can help" in letter.error


async def test_declared_transient_code_is_tried_again(tmp_path: Path) -> None:
    class BusyError(Error):
        """Busy, although its code would say that no try helps."""

    runs: list[int] = []

    async def handler(ctx: Context, event: Placed) -> None:
        runs.append(ctx.attempt)
        if len(runs) < 3:
            raise BusyError(Code.FAILED_PRECONDITION, "Busy.")
        await note(ctx, event)

    async with system(tmp_path, handler, limits=Limits(transient=(BusyError,))) as run:
        await run.publish(("a", 1))
        await moved(run, 1.0)

        assert runs == [1, 2, 3]
        assert await run.effects() == [("a", 1)]


async def test_each_delayed_round_repeats_the_inline_tries(tmp_path: Path) -> None:
    times: list[float] = []

    async def handler(ctx: Context, _event: Placed) -> None:
        times.append(run.clock.now() - start)
        raise Error(Code.UNAVAILABLE, f"Away at try {ctx.attempt}.")

    async with system(tmp_path, handler, limits=Limits(inline=3, parked=(10.0, 20.0, 30.0))) as run:
        start = run.clock.now()
        await run.publish(("a", 1))
        await dead(run, step=0.25)
        (letter,) = await run.store.letters()

        assert len(times) == 12
        assert letter.attempts == 12
        assert letter.error == "Away at try 12."
        rounds = [times[each] for each in (0, 3, 6, 9)]
        assert rounds == sorted(rounds)
        for number, pause in enumerate((10.0, 20.0, 30.0)):
            assert pause <= rounds[number + 1] - times[3 * number + 2] <= pause + 2.5


async def test_retries_end_a_day_after_the_first_failure(tmp_path: Path) -> None:
    """Two rounds are left; a machine that slept for a day does not spend another hour on them."""
    runs: list[float] = []

    async def handler(_ctx: Context, _event: Placed) -> None:
        runs.append(run.clock.now())
        raise Error(Code.UNAVAILABLE, "Away.")

    async with system(tmp_path, handler, limits=Limits(inline=1)) as run:
        await run.publish(("a", 1))
        await until(lambda: run.mail.counts.parked == 1, "parked")
        run.clock._now += 86_380.0
        await moved(run, 5.0, step=0.5)
        assert await states(run) == [LetterState.PARKED]  # one more round, still within the day
        assert len(runs) == 2

        run.clock._now += 20.0
        await moved(run, 25.0, step=0.5)

        assert await states(run) == [LetterState.DEAD]
        assert len(runs) == 3


async def test_own_limits_hold_for_one_handler_only(tmp_path: Path) -> None:
    attempts: list[str] = []

    async def placed(_ctx: Context, _event: Placed) -> None:
        attempts.append("placed")
        raise Error(Code.UNAVAILABLE, "Away.")

    async def charge(_ctx: Context, _request: Any) -> Any:
        attempts.append("charge")
        raise Error(Code.UNAVAILABLE, "Away.")

    async with system(tmp_path, placed, on={"limits": Limits(inline=1, parked=())}, charge=charge) as run:
        orders = run.app.services[0]
        async with run.app.transaction(orders) as ctx:
            await ctx.publish(Placed(order="a", number=1))
            await ctx.send(Payments.charge, Charge(order="b", cents=1))
        await moved(run, 2.0)
        letters = {letter.key: letter for letter in await run.store.letters()}

        assert attempts.count("placed") == 1
        assert attempts.count("charge") == 3
        assert letters["a"].state is LetterState.DEAD
        assert letters["b"].state is LetterState.PARKED


async def test_own_timeout_holds_for_one_handler_only(tmp_path: Path) -> None:
    times: list[float] = []

    async def slow(ctx: Context, event: Placed) -> None:
        times.append(ctx.time_left)
        await run.clock.sleep(100.0)
        await note(ctx, event)

    async with system(tmp_path, slow, limits=Limits(timeout=4.0), on={"timeout": 120.0}) as run:
        await run.publish(("a", 1))
        await until(lambda: bool(times), "running")
        await run.clock.advance(101.0)
        await quiet(run)

        assert times == [pytest.approx(120.0, abs=1.0)]
        assert await run.effects() == [("a", 1)]


async def test_other_keys_flow_while_one_waits_for_its_next_inline_try(tmp_path: Path) -> None:
    seen: list[str] = []

    async def handler(ctx: Context, event: Placed) -> None:
        seen.append(f"{event.order}{event.number}")
        if event.order == "bad" and seen.count("bad1") < 3:
            raise Error(Code.UNAVAILABLE, "Away.")
        await note(ctx, event)

    async with system(tmp_path, handler) as run:
        await run.publish(("bad", 1), ("bad", 2), *(("good", number) for number in range(20)))
        await until(lambda: run.mail.counts.handled == 20, "good ones handled")
        assert "bad2" not in seen
        await moved(run, 1.0)

        assert seen[-2:] == ["bad1", "bad2"]
        assert await run.effects("select number from effect where key = 'bad' order by position") == [(1,), (2,)]


async def test_pauses_are_drawn_from_the_injected_random(tmp_path: Path) -> None:
    times: list[float] = []

    async def handler(_ctx: Context, _event: Placed) -> None:
        times.append(run.clock.now())
        await asyncio.sleep(0)
        raise Error(Code.UNAVAILABLE, "Away.")

    async with system(tmp_path, handler, limits=Limits(inline=4, backoff=1.0, parked=(50.0,))) as run:
        drawn: list[float] = []

        def draw() -> float:
            drawn.append(0.5)
            return 0.5

        run.mail.retrying._random.random = draw
        await run.publish(("a", 1))
        await moved(run, 10.0)

        pauses = [round(later - earlier, 3) for earlier, later in pairwise(times)]
        assert pauses == [1.0, 2.0, 4.0]
