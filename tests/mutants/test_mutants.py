"""Linkspan broken on purpose, one promise at a time: a suite that misses one of these proves nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.mutants.patches import ROOT, all_patches, durable_files
from tests.mutants.trial import AT_ONCE, LIMIT, begin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Future

    from tests.mutants.trial import Verdict

PATCHES = {patch.name: patch for patch in all_patches()}


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Future[Verdict]]]:
    """Try those that were asked for, a few at once."""
    asked = {
        item.callspec.params.get("name")
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield begin([patch for name, patch in PATCHES.items() if name in asked], pool)
        pool.shutdown(cancel_futures=True)


@pytest.mark.timeout(10 * LIMIT)
@pytest.mark.parametrize("name", PATCHES)
def test_mutant_is_caught(name: str, verdicts: Mapping[str, Future[Verdict]]) -> None:
    verdict = verdicts[name].result()
    if verdict.skipped:
        pytest.skip(verdict.said)

    assert verdict.caught, f"{name}, '{PATCHES[name].promise}', by {verdict.killer}: {verdict.said}"


def test_every_file_of_the_durable_path_has_a_mutant() -> None:
    broken = {file for patch in PATCHES.values() for file in patch.files}

    assert [file for file in durable_files() if file not in broken] == []


def test_there_are_many_and_each_changes_one_file_of_the_durable_path() -> None:
    durable = set(durable_files())

    assert len(PATCHES) >= 30
    assert {patch.name: patch.files for patch in PATCHES.values() if len(patch.files) != 1 or not durable.issuperset(patch.files)} == {}


def test_each_is_killed_by_a_test_of_a_suite_that_ci_runs() -> None:
    suites = {line.split()[1] for line in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines() if line.startswith("tests ")}

    assert {patch.name: patch.killer for patch in PATCHES.values() if patch.killer.split("/")[1] not in suites} == {}
    assert {patch.name: patch.killer for patch in PATCHES.values() if not (ROOT / patch.killer.partition("::")[0]).is_file()} == {}
