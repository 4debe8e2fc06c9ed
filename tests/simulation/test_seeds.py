"""Whole systems in simulated time: each seed is one history of crashes, lost answers, duplicates and failing handlers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from linkspan.testing import World
from proof.simulation import lived_through
from tests.simulation.shop import run

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan.testing.simulation import Process

pytest.importorskip("greenlet", reason="not run: greenlet is not installed")

SEEDS = int(os.environ.get("LINKSPAN_SEEDS", "200"))
SHARD = 20


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(1, SEEDS + 1, SHARD))
def test_nothing_is_lost_doubled_or_reordered_whatever_the_seed(first: int) -> None:
    deaths = 0
    for each in lived_through(range(first, first + SHARD), os.cpu_count() or 1):
        assert not each["violations"], f"python -m proof.simulation --seed {each['seed']}"
        assert each["effects"] > 100
        deaths += each["deaths"]
    assert deaths > SHARD


def test_one_seed_is_one_history(tmp_path: Path) -> None:
    digests = set()
    for turn in range(3):
        folder = tmp_path / str(turn)
        folder.mkdir()
        digests.add(run(7, folder).digest)
    (tmp_path / "other").mkdir()
    assert len(digests) == 1
    assert run(8, tmp_path / "other").digest not in digests


def test_time_passes_where_nothing_is_left_to_do(tmp_path: Path) -> None:
    with World(1, tmp_path) as world:

        async def life(process: Process) -> None:
            await process.runtime.clock.sleep(1.0)

        world.process("short", life)
        assert not world.run(60.0, until=lambda: False)
        assert world.time.now == 60.0
