"""A service holds only so many letters: what comes on top stays in hand, other keys flow, and nothing is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from linkspan import Error, Limits
from linkspan.ports import LetterState
from tests.unit.durable import Placed, System, note, system, until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from linkspan import Context


class Broken:
    """A handler that refuses first messages of keys that begin with `bad`, until it is mended."""

    def __init__(self) -> None:
        self.mended = False

    async def __call__(self, ctx: Context, event: Placed) -> None:
        if event.number == 1 and event.order.startswith("bad") and not self.mended:
            raise Error.refused("No.")
        await note(ctx, event)


async def settle(run: System, seconds: float) -> None:
    for _ in range(round(seconds * 10)):
        await run.clock.advance(0.1)
        await run.store.apply([])


async def free(run: System) -> None:
    """Redrive what is dead until nothing is held and nothing in hand."""

    async def nothing() -> bool:
        dead = await run.store.letters(states=[LetterState.DEAD])
        await run.store.redrive([each.position for each in dead], who="ada", why="mended", at=run.clock.now())
        await settle(run, 1.0)
        return not await run.store.letters() and not run.mail.in_hand

    await until(nothing, "nothing is held")


async def test_key_is_full_and_the_rest_waits_in_hand_in_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    handler = Broken()
    async with system(tmp_path, handler, limits=Limits(held_per_key=3)) as run:
        await run.publish(*(("bad", number) for number in range(1, 9)))
        await run.publish(*(("good", number) for number in range(1, 4)))

        async def flown() -> bool:
            return len(await run.effects()) == 3

        await until(flown, "another key flows")
        await settle(run, 3.0)
        held, in_hand = len(await run.store.letters()), len(run.mail.in_hand)
        handler.mended = True
        await free(run)

        assert (held, in_hand) == (3, 5)
        assert await run.effects("select number from effect where key = 'bad' order by position") == [(n,) for n in range(1, 9)]
        assert next(record.levelname for record in caplog.records if "No more letters are held" in record.message) == "ERROR"


async def test_service_is_full_and_loses_nothing_by_a_restart(tmp_path: Path) -> None:
    handler = Broken()
    limits = Limits(held=4)
    async with system(tmp_path, handler, limits=limits) as run:
        log, clock = run.log, run.clock
        await run.publish(*((f"bad{key}", 1) for key in range(7)))

        async def four() -> bool:
            return len(await run.store.letters()) == 4 and len(run.mail.in_hand) == 3

        await until(four, "four are held, three in hand")
    async with system(tmp_path, handler, limits=limits, log=log, clock=clock) as run:
        await settle(run, 2.0)
        assert len(await run.store.letters()) == 4
        handler.mended = True
        await free(run)

        assert sorted(await run.effects()) == [(f"bad{key}", 1) for key in range(7)]


async def test_discarding_makes_room(tmp_path: Path) -> None:
    async with system(tmp_path, Broken(), limits=Limits(held=1)) as run:
        await run.publish(("bad1", 1), ("bad2", 1))

        async def one() -> bool:
            return len(await run.store.letters()) == 1 and len(run.mail.in_hand) == 1

        await until(one, "one is held, one in hand")
        (first,) = await run.store.letters()
        assert await run.store.discard(first.position, who="ada", why="test", at=1.0)

        async def other() -> bool:
            await settle(run, 1.0)
            await asyncio.sleep(0)
            return [each.key for each in await run.store.letters()] == ["bad2"]

        await until(other, "the other is held")
