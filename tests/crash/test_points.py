"""Die at every named point, start again, drain: nothing acknowledged is lost, nothing happens twice, order per key holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.matrix import EXCUSED, names_in_source, parse
from tests.crash.running import SERVICES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.crash.matrix import Result

NAMES = sorted(names_in_source())


@pytest.mark.parametrize("name", NAMES)
def test_workload_passes_point(name: str, recorded: Mapping[str, Mapping[str, int]]) -> None:
    passing = {process for process, counts in recorded.items() if counts.get(name)}

    if name.rpartition(".")[0] in EXCUSED:
        assert not passing & set(SERVICES)
    else:
        assert passing >= set(SERVICES)


def test_every_excuse_is_needed() -> None:
    assert set(EXCUSED) <= {name.rpartition(".")[0] for name in NAMES}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_crash_at_point_breaks_no_promise(name: str, matrix: list[Result], recorded: Mapping[str, Mapping[str, int]]) -> None:
    mine = [result for result in matrix if "+" not in result.spec and f"={name}:" in result.spec]

    assert {next(iter(parse(result.spec))) for result in mine} == {process for process, counts in recorded.items() if name in counts}
    assert [result.spec for result in mine if not result.died] == []
    assert [(result.spec, result.violations) for result in mine if result.violations] == []


def test_crashes_of_both_services_break_no_promise(matrix: list[Result]) -> None:
    both = [result for result in matrix if "+" in result.spec]

    assert len(both) == 12
    assert all(result.died for result in both)
    assert [(result.spec, result.violations) for result in both if result.violations] == []
