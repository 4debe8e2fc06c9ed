"""How much an instance takes: what its workers get done in half a second, and never what it cannot work on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from linkspan import Limits, Service, SetupError
from linkspan.incoming.pace import PREFETCH, Pace
from linkspan.testing.clock import FakeClock
from tests.unit.durable import Placed, note, system, until
from tests.unit.test_breaker import Dependency, publish

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan import Context
    from linkspan.incoming.work import Work


def measured(*seconds: float, workers: int = 16, at_once: int = 16) -> int:
    """Return the bound after messages that took so long."""
    clock, told = FakeClock(), list[int]()
    pace = Pace(clock, workers, None, told.append)
    for each in seconds:
        work = _work(clock)
        pace.begins(work)
        clock._now += each
        work.running = False
        pace.ended(work, at_once)
    assert not told or told[-1] == pace.prefetch
    return pace.prefetch


def _work(clock: FakeClock) -> Work:
    from linkspan.incoming.work import Work

    work = Work(None, None, "a")  # type: ignore[arg-type]  # only its times are read
    work.started, work.running = clock.monotonic(), True
    return work


def test_quick_handlers_take_thousands_and_slow_ones_twice_their_workers() -> None:
    assert measured(0.0001, 0.0001) == PREFETCH
    assert measured(0.01, 0.01) == pytest.approx(800, abs=2)
    assert measured(1.0) == 32
    assert measured(60.0) == 32


def test_a_handler_that_waits_for_nothing_is_one_worker() -> None:
    """Sixteen workers compute no faster than one: 20 messages of 25 ms are half a second."""
    assert measured(0.001, at_once=1) == pytest.approx(500, abs=2)
    assert measured(0.025, at_once=1) == 32


def test_it_follows_a_handler_that_becomes_slow_and_quick_again() -> None:
    assert measured(0.001, 1.0) == 32
    assert measured(1.0, *[0.0001] * 16) > PREFETCH * 0.9


def test_a_message_that_is_still_running_says_already_that_it_is_slow() -> None:
    clock, told = FakeClock(), list[int]()
    pace = Pace(clock, 16, None, told.append)
    pace.begins(first := _work(clock))
    pace.ended(first, 16)
    assert pace.prefetch == PREFETCH
    slow = _work(clock)
    pace.begins(slow)
    clock._now += 2.0
    pace.begins(_work(clock))

    assert pace.prefetch < 300
    assert pace.measured is slow


def test_a_fixed_bound_stays() -> None:
    clock, told = FakeClock(), list[int]()
    pace = Pace(clock, 16, 7, told.append)
    pace.begins(work := _work(clock))
    clock._now += 5.0
    pace.ended(work, 16)

    assert (pace.prefetch, pace.most, told) == (7, 7, [])


async def test_slow_service_holds_no_more_than_it_can_work_on(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def slow(ctx: Context, event: Placed) -> None:
        await go.wait()
        await note(ctx, event)

    async with system(tmp_path, slow, limits=Limits(timeout=1_000.0)) as run:
        await publish(run, 200)
        await until(lambda: len(run.mail.in_hand) == 32, "as many as it works on")
        await run.app.running["orders"].relay.flush()
        for _ in range(20):
            await run.clock.advance(0.5)
        assert len(run.mail.in_hand) == 32

        go.set()
        await until(lambda: run.mail.counts.handled == 400, "handled")


async def test_service_that_only_records_takes_as_much_as_ever(tmp_path: Path) -> None:
    async with system(tmp_path) as run:
        await publish(run, 1)
        await until(lambda: run.mail.counts.handled == 2, "handled")

        assert run.mail._pace.prefetch == PREFETCH


async def test_one_handler_runs_no_more_often_at_a_time_than_it_may(tmp_path: Path) -> None:
    dependency = Dependency()

    async with system(tmp_path, dependency.handle, on={"limits": Limits(concurrency=3)}) as run:
        await publish(run, 40)
        await until(lambda: run.mail.counts.handled == 80, "handled")

        assert dependency.most == 3


async def test_open_breaker_takes_no_more_than_it_needs_to_find_out(tmp_path: Path) -> None:
    dependency = Dependency()
    async with system(tmp_path, dependency.handle) as run:
        await publish(run, 20)
        await until(lambda: run.mail.counts.handled == 40, "handled")
        assert run.mail._pace.prefetch == PREFETCH
        dependency.up = False
        await publish(run, 20, "l")
        await until(lambda: run.mail.circuit.open, "open")
        await publish(run, 200, "m")
        await run.app.running["orders"].relay.flush()
        assert len(run.mail.in_hand) <= 40

        dependency.up = True
        while run.mail.counts.handled < 480:
            await run.clock.advance(0.2)


def test_prefetch_below_one_is_refused() -> None:
    with pytest.raises(SetupError, match="cannot prefetch 0: use 1 or more"):
        Service("mail", prefetch=0)
