"""A pytest plugin inside a mutant's process: it checks which linkspan is tried, and writes down how the killing test ended."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import linkspan

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

FOLDER = "LINKSPAN_MUTANT"
"""The variable that names the mutant's folder: its `src` is what must be tried, its `report.jsonl` is written."""
REPORT = "report.jsonl"


def pytest_configure() -> None:
    folder, found = Path(os.environ[FOLDER]), Path(linkspan.__file__)
    if not found.is_relative_to(folder):
        raise pytest.UsageError(f"linkspan came from {found}, not from {folder}: it is not the mutant that would be tried.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, pytest.TestReport]:
    report: pytest.TestReport = yield
    kinds = sorted({type(error).__name__ for error in _leaves(call.excinfo.value)}) if call.excinfo is not None else []
    said = str(call.excinfo.value).strip().splitlines()[:1] if call.excinfo is not None else []
    entry = {"test": item.nodeid, "when": report.when, "outcome": report.outcome, "kinds": kinds, "said": "".join(said)}
    with (Path(os.environ[FOLDER]) / REPORT).open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    return report


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, or those that a group of them holds."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
