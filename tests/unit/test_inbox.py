"""The inbox: one effect per message, however often it comes, and for as long as it may come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan import Code, Error, Limits
from tests.unit.durable import Placed, note, system, until
from tests.unit.test_retries import dead, moved

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import Context

DAY = 86_400.0


async def test_thirty_percent_duplicates_have_one_effect_each(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        run.faults.duplicates = 0.3
        await run.publish(*((f"k{number % 20}", number) for number in range(600)))
        await until(lambda: run.mail.counts.handled == 600, "handled")
        await until(lambda: run.mail.counts.duplicates > 120, "duplicates")

        assert sorted(await run.effects("select number from effect")) == [(number,) for number in range(600)]


async def test_redrive_after_a_week_has_one_effect(tmp_path: Path) -> None:
    """The broker brings the message again too, before and after its redrive."""
    away = True

    async def handler(ctx: Context, event: Placed) -> None:
        if away and event.order == "bad":
            raise Error(Code.UNAVAILABLE, "Away.")
        await note(ctx, event)

    async with system(tmp_path, handler, limits=Limits(inline=1, parked=(1.0,))) as run:
        await run.publish(("bad", 1), ("good", 1))
        await dead(run)
        run.clock._now += 7 * DAY
        again = run.log.topics["durable.test.v1.events"].records[:2]
        for record in again:
            run.log.append("durable.test.v1.events", record.headers, record.data)
        await moved(run, 3.0, step=0.5)
        away = False
        (letter,) = await run.store.letters()
        assert await run.store.redrive([letter.position], who="ann", why="mended", at=run.clock.now()) == 1
        await moved(run, 5.0, step=0.5)
        for record in again:
            run.log.append("durable.test.v1.events", record.headers, record.data)
        await moved(run, 3.0, step=0.5)

        assert sorted(await run.effects()) == [("bad", 1), ("good", 1)]
        assert await run.store.letters() == []


async def test_ids_are_remembered_for_the_retention_and_no_longer(tmp_path: Path) -> None:
    async with system(tmp_path, mail={"retention": 2 * DAY}) as run:
        await run.publish(("a", 1))
        await until(lambda: run.mail.counts.handled == 1, "handled")
        count = "select count(*) from linkspan_inbox"
        run.clock._now += 1.9 * DAY
        await moved(run, 3_700.0, step=3_700.0)
        assert await run.store.read(count) == [(1,)]
        run.clock._now += 0.2 * DAY

        async def forgotten() -> bool:
            await run.clock.advance(3_700.0)
            return await run.store.read(count) == [(0,)]

        await until(forgotten, "forgotten")
