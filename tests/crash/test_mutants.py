"""Each broken promise is found: the checks that pass on the real code fail on code that is wrong in one place."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.crash.matrix import AT_ONCE, parse
from tests.crash.mutants import MUTANTS
from tests.crash.running import Run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def later(spec: str, attempt: int) -> str:
    """Move each point of a spec to a later passing: `orders=store.commit.before:20:kill` dies at the 23rd in the next attempt."""
    return re.sub(r":(\d+):", lambda found: f":{int(found[1]) + 3 * attempt}:", spec)


async def rules_broken(name: str, folder: Path, limit: asyncio.Semaphore) -> tuple[str, set[str]]:
    """Run the workload on the mutant, eight times at most, and return the rules that the checker found broken.

    Each time it dies at another passing of its point: not every commit holds an answer or an event.
    """
    wrong, broken = MUTANTS[name], set[str]()
    for attempt in range(8):
        async with limit:
            run = Run(folder / f"{name}{attempt}", crash=parse(later(wrong.spec, attempt)), limit=10.0, mutant=name, lossy=wrong.lossy)
            async with run.started():
                outcome = await run.finish()
        broken |= {violation.rule for violation in outcome.violations}
        if broken & wrong.rules:
            break
    return name, broken


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, set[str]]:
    """Run every mutant, a few at once."""

    async def all_of_them() -> Mapping[str, set[str]]:
        limit, folder = asyncio.Semaphore(AT_ONCE), tmp_path_factory.mktemp("mutants")
        return dict(await asyncio.gather(*(rules_broken(name, folder, limit) for name in MUTANTS)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(all_of_them())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str, found: Mapping[str, set[str]]) -> None:
    assert found[name] & MUTANTS[name].rules


@pytest.mark.timeout(120)
async def test_lost_answers_break_no_promise(tmp_path: Path) -> None:
    """The faults that some mutants need are none for the real code."""
    run = Run(tmp_path, lossy=0.2)
    async with run.started():
        outcome = await run.finish()

    assert outcome.violations == []
    assert outcome.sums["acknowledged"] == outcome.sums["note"]
