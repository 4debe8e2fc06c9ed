"""The crash matrix is run once, several systems side by side; each point is a test of its own all the same."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.crash.matrix import Result, combined, each_point, record, run_all

if TYPE_CHECKING:
    from collections.abc import Mapping

SEED = int(os.environ.get("LINKSPAN_CRASH_SEED", "1"))
"""Another seed tries other combinations."""


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Mapping[str, int]]:
    """Count how often each process passes each point when nothing crashes."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(record(tmp_path_factory.mktemp("record") / "run"))


@pytest.fixture(scope="session")
def matrix(recorded: Mapping[str, Mapping[str, int]], tmp_path_factory: pytest.TempPathFactory) -> list[Result]:
    """Tell what became of each crash; `LINKSPAN_CRASH_RESUME=file` goes on where an earlier run stopped."""
    resume = os.environ.get("LINKSPAN_CRASH_RESUME")
    specs = [*each_point(recorded), *combined(recorded, SEED, 12)]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run_all(specs, tmp_path_factory.mktemp("matrix"), resume=Path(resume) if resume else None))
