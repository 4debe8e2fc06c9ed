"""The consumer's breaker: an outage of a dependency costs no message, in simulated time."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from linkspan import Breaker, Code, Error, Limits, SetupError
from linkspan.ports import LetterState
from tests.unit.durable import Placed, System, note, system, until
from tests.unit.test_retries import moved, states

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import Context


class Dependency:
    """Something that handlers need, and that is away at times."""

    def __init__(self) -> None:
        self.up = True
        self.calls: list[tuple[float, str]] = []
        self.under_way = self.most = 0
        self.poison: set[str] = set()

    async def handle(self, ctx: Context, event: Placed) -> None:
        self.calls.append((ctx.time_left, event.order))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if not self.up or event.order in self.poison:
            raise ConnectionError
        await note(ctx, event)


async def publish(run: System, count: int, name: str = "k") -> None:
    orders = run.app.services[0]
    async with run.app.transaction(orders) as ctx:
        for number in range(count):
            await ctx.publish(Placed(order=f"{name}{number}", number=1))
            await ctx.publish(Placed(order=f"{name}{number}", number=2))


async def handled(run: System, count: int) -> None:
    """Wait until so many were handled, while time goes on."""

    async def there() -> bool:
        await run.clock.advance(0.05)
        return run.mail.counts.handled >= count

    await until(there, f"{count} handled")


async def test_outage_of_five_seconds_makes_no_letter(tmp_path: Path) -> None:
    dependency = Dependency()
    dependency.up = False
    async with system(tmp_path, dependency.handle) as run:
        await publish(run, 100)
        await until(lambda: run.mail.circuit.open and not dependency.under_way, "open")
        before, dependency.most = len(dependency.calls), 0
        for _ in range(50):
            await run.clock.advance(0.1)
            await until(lambda: not dependency.under_way, "probed")
        probes = len(dependency.calls) - before
        assert 2 <= probes <= 6
        assert dependency.most == 1

        dependency.up = True
        await handled(run, 200)

        assert not run.mail.circuit.open
        assert (run.mail.counts.parked, run.mail.counts.dead, await run.store.letters()) == (0, 0, [])
        for number in range(100):
            assert await run.effects(f"select number from effect where key = 'k{number}' order by position") == [(1,), (2,)]
        assert await run.effects("select distinct attempt from effect where number = 2") == [(1,)]


async def test_pauses_between_probes_double_up_to_the_longest(tmp_path: Path) -> None:
    dependency = Dependency()
    dependency.up = False
    async with system(tmp_path, dependency.handle, mail={"breaker": Breaker(pause=1.0, longest=4.0)}) as run:
        run.mail.circuit._random.random = lambda: 0.999999
        await publish(run, 20)
        await until(lambda: run.mail.circuit.open, "open")
        times: list[float] = []
        count = len(dependency.calls)
        for _ in range(190):
            await run.clock.advance(0.1)
            if len(dependency.calls) > count:
                count = len(dependency.calls)
                times.append(run.clock.now())

        pauses = [round(later - earlier, 1) for earlier, later in zip(times[-4:], times[-3:], strict=False)]
        assert set(pauses) <= {4.0, 4.1}
        assert 5 <= len(times) <= 7


async def test_a_share_below_the_threshold_keeps_it_closed(tmp_path: Path) -> None:
    """Twelve poison keys among two hundred are poison, not an outage."""
    dependency = Dependency()
    dependency.poison = {f"k{number}" for number in range(0, 96, 8)}
    async with system(tmp_path, dependency.handle, limits=Limits(parked=())) as run:
        await publish(run, 100)
        await moved(run, 5.0, step=0.25)

        assert run.mail.counts.dead == 12
        assert run.mail.circuit._since == 0.0  # never opened
        assert run.mail.counts.handled == 176


async def test_terminal_errors_keep_it_closed(tmp_path: Path) -> None:
    async def refuse(_ctx: Context, _event: Placed) -> None:
        raise Error.refused("No.")

    async with system(tmp_path, refuse) as run:
        await publish(run, 40)
        await until(lambda: run.mail.counts.dead == 40, "dead")

        assert not run.mail.circuit.open


async def test_one_poison_message_alone_does_not_open_it_and_dies(tmp_path: Path) -> None:
    dependency = Dependency()
    dependency.poison = {"k0"}
    async with system(tmp_path, dependency.handle, limits=Limits(inline=8, parked=(1.0, 1.0))) as run:
        await publish(run, 1)
        await moved(run, 120.0, step=0.5)

        assert await states(run) == [LetterState.DEAD, LetterState.WAITING]
        assert not run.mail.circuit.open


async def test_many_poison_messages_open_it_and_are_still_told_from_an_outage(tmp_path: Path) -> None:
    """The first message that succeeds ends the pause, and the poison goes the way of all poison."""
    dependency = Dependency()
    dependency.poison = {f"bad{number}" for number in range(30)}
    async with system(tmp_path, dependency.handle, limits=Limits(parked=())) as run:
        await publish(run, 30, "bad")
        await publish(run, 30, "good")
        await moved(run, 60.0, step=0.5)

        assert run.mail.counts.handled == 60
        assert run.mail.counts.dead == 30
        assert not run.mail.circuit.open


async def test_held_messages_lose_no_try_while_it_is_open(tmp_path: Path) -> None:
    dependency = Dependency()
    dependency.poison = {"held0"}
    async with system(tmp_path, dependency.handle, limits=Limits(parked=(5.0, 5.0))) as run:
        await publish(run, 1, "held")
        await until(lambda: run.mail.counts.retried == 1, "retried")
        await moved(run, 1.0)
        assert await states(run) == [LetterState.PARKED, LetterState.WAITING]
        (letter, _) = await run.store.letters()

        dependency.up, dependency.poison = False, set()
        await publish(run, 30)
        await until(lambda: run.mail.circuit.open, "open")
        await moved(run, 60.0, step=0.5)
        (after, _) = await run.store.letters()
        assert (after.state, after.attempts, after.error) == (LetterState.PARKED, letter.attempts, letter.error)

        dependency.up = True
        await moved(run, 40.0, step=0.5)
        assert run.mail.counts.handled == 62
        assert await run.store.letters() == []


async def test_held_message_is_tried_where_no_other_waits(tmp_path: Path) -> None:
    dependency = Dependency()
    dependency.up = False
    async with system(
        tmp_path, dependency.handle, limits=Limits(inline=1, parked=(1.0, 1.0)), mail={"breaker": Breaker(failures=2)}
    ) as run:
        await publish(run, 1)
        await moved(run, 0.5)
        assert await states(run) == [LetterState.PARKED, LetterState.WAITING]
        run.mail.circuit._trip(Error(Code.UNAVAILABLE, "Away."))
        await moved(run, 20.0, step=0.5)
        assert run.mail.circuit.open
        assert await states(run) == [LetterState.PARKED, LetterState.WAITING]

        dependency.up = True
        await moved(run, 40.0, step=0.5)
        assert not run.mail.circuit.open
        assert await run.store.letters() == []


async def test_held_message_is_tried_where_all_in_hand_fail_for_reasons_of_their_own(tmp_path: Path) -> None:
    dependency = Dependency()
    dependency.poison = {f"bad{number}" for number in range(12)} | {"held0"}
    limits, breaker = Limits(inline=1, parked=(30.0, 30.0)), Breaker(failures=12, longest=5.0)
    async with system(tmp_path, dependency.handle, limits=limits, mail={"breaker": breaker}) as run:
        await publish(run, 1, "held")
        await moved(run, 0.5)
        assert await states(run) == [LetterState.PARKED, LetterState.WAITING]
        await publish(run, 12, "bad")
        await until(lambda: run.mail.circuit.open, "open")

        dependency.poison.discard("held0")
        await moved(run, 120.0, step=0.5)
        assert not run.mail.circuit.open
        assert run.mail.counts.handled == 2


async def test_message_behind_a_held_one_does_not_wait_for_the_rare_look_when_the_breaker_refused_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dependency = Dependency()
    dependency.up = False
    async with system(tmp_path, dependency.handle, limits=Limits(inline=1, parked=(1.0, 1.0))) as run:
        await publish(run, 1)
        await moved(run, 0.5)
        assert await states(run) == [LetterState.PARKED, LetterState.WAITING]
        answers = [True, False]
        monkeypatch.setattr(run.mail.circuit, "takes_letter", lambda: answers.pop(0) if answers else True)

        dependency.up = True
        await moved(run, 6.0, step=0.5)
        assert not answers
        assert await run.store.letters() == []


async def test_refused_message_says_nothing_and_the_next_is_tried_at_once(tmp_path: Path) -> None:
    dependency = Dependency()
    dependency.up = False
    refused: list[str] = []

    async def handler(ctx: Context, event: Placed) -> None:
        if dependency.up and len(refused) < 3:
            refused.append(event.order)
            raise Error.refused("No.")
        await dependency.handle(ctx, event)

    async with system(tmp_path, handler, mail={"breaker": Breaker(pause=1.0, longest=1.0)}) as run:
        await publish(run, 20)
        await until(lambda: run.mail.circuit.open and not dependency.under_way, "open")
        dependency.up = True
        await run.clock.advance(1.5)
        await until(lambda: not run.mail.circuit.open, "closed")

        assert len(refused) == 3


async def test_it_can_be_left_out(tmp_path: Path) -> None:
    dependency = Dependency()
    dependency.up = False
    async with system(tmp_path, dependency.handle, mail={"breaker": None}) as run:
        await publish(run, 30)
        await moved(run, 2.0)

        assert not run.mail.circuit.open
        assert run.mail.counts.parked == 30


async def test_open_breaker_is_logged_and_noted_and_the_process_stays_ready(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dependency = Dependency()
    dependency.up = False
    caplog.set_level(logging.WARNING, "linkspan.breaker")

    def asked(address: str) -> tuple[int, Any]:
        with urllib.request.urlopen(f"{address}/readyz") as answer:
            return answer.status, json.load(answer)

    async with system(tmp_path, dependency.handle) as run:
        await publish(run, 30)
        await until(lambda: run.mail.circuit.open, "open")
        status, told = await asyncio.to_thread(asked, run.app.address)

        assert (status, told["status"]) == (200, "ready")
        assert "one at a time is tried until one succeeds" in told["waiting"]["consumer mail durable.test.v1.events"]
        dependency.up = True
        await handled(run, 60)
        status, told = await asyncio.to_thread(asked, run.app.address)
        assert "waiting" not in told

    opened, closed = (record for record in caplog.records if record.name == "linkspan.breaker")
    assert opened.__dict__["code"] == "unknown"
    assert closed.__dict__["topic"] == "durable.test.v1.events"


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"share": 0.0}, {"share": 1.5}, {"pause": 0.0}, {"pause": 50.0}, {"window": 0.0}])
def test_breakers_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SetupError, match="cannot work"):
        Breaker(**wrong)
