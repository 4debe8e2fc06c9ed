"""Answers that are lost are none of Linkspan's faults, and break no promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.running import Run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(120)
async def test_lost_answers_break_no_promise(tmp_path: Path) -> None:
    run = Run(tmp_path, lossy=0.2)
    async with run.started():
        outcome = await run.finish()

    assert outcome.violations == []
    assert outcome.sums["acknowledged"] == outcome.sums["note"]
