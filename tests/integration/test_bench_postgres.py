"""The benchmark's PostgreSQL rows run, and every figure comes out: the quick benchmark leaves them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.harness import Effort
from benchmarks.rows import ROWS, Bench
from tests.integration.postgres_runner import binaries

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("name", ["postgres", "postgres-consumer"])
def test_row_gives_a_figure_for_each_goal(name: str) -> None:
    if binaries() is None:
        pytest.skip("not run: there is no PostgreSQL here; the wheel of the dev extra has one")
    show: Callable[[str], None] = print
    with Bench(Effort(rounds=1, scale=0.05), show) as bench:
        entries = ROWS[name].run(bench)
    assert [entry.goal for entry in entries] == list(ROWS[name].goals)
    assert all(entry.ours and entry.peer for entry in entries)
