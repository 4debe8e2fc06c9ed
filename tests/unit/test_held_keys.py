"""Held keys that nothing but the holding itself would call up: none of them stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan import Code, Error, Limits
from linkspan.letters.deadletter import Holding
from linkspan.ports import LetterState, Outcome
from tests.unit.durable import Placed, System, note, system, until
from tests.unit.test_retries import moved, states

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from linkspan import Context
    from linkspan.ports import Unit


async def refuses_bad(ctx: Context, event: Placed) -> None:
    if event.order == "bad":
        raise Error.refused("No.")
    await note(ctx, event)


async def looked_at_all(run: System) -> None:
    """Hold one dead letter and let the look at everything pass: the next one is a minute away."""
    await run.publish(("bad", 1))
    await until(lambda: run.mail.counts.dead == 1, "dead")
    await moved(run, 3.0)


async def test_message_stored_out_of_care_is_handled_though_the_care_ended_before_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Holding.hold

    def hold(self: Holding, *rest: Any) -> None:
        right(self, *rest)
        run.mail._careful = 0

    async with system(tmp_path, refuses_bad) as run:
        await looked_at_all(run)
        run.mail.beware()
        monkeypatch.setattr(Holding, "hold", hold)
        await run.publish(("good", 1))
        await moved(run, 3.0)

        assert await run.effects() == [("good", 1)]
        assert await states(run) == [LetterState.DEAD]


async def test_waiting_letter_whose_run_could_not_be_noted_is_taken_up_at_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, failures = Holding._noted, [True]

    def noted(self: Holding, consumer: Any, letter: Any, key: Any, unit: Unit) -> None:
        if failures and letter.state is LetterState.WAITING:
            failures.pop()
            unit.outcome, unit.error = Outcome.FAILED, Error(Code.UNAVAILABLE, "The disk is full.")
        right(self, consumer, letter, key, unit)

    async def fails_once(ctx: Context, event: Placed) -> None:
        if event.order == "good" and event.number == ctx.attempt == 1:
            raise ConnectionError
        await refuses_bad(ctx, event)

    async with system(tmp_path, fails_once, limits=Limits(inline=1, parked=(5.0,))) as run:
        await looked_at_all(run)
        monkeypatch.setattr(Holding, "_noted", noted)
        await run.publish(("good", 1), ("good", 2))
        run.app.running["mail"].holding._wary = True
        await moved(run, 10.0, step=0.5)

        assert not failures
        assert await run.effects() == [("good", 1), ("good", 2)]
