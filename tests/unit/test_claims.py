"""What the pages promise, tests hold: each test that a page names is there, and the lines that how-tos show are those of the examples."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["SECURITY.md", "docs/reference/stability.md", "docs/reference/wire-format.md"]
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^\s*(?:async )?def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("page", PAGES)
def test_tests_that_a_page_names_are_there(page: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / page).read_text(encoding="utf-8")))
    assert named
    assert sorted(named - TESTS) == []


@pytest.mark.parametrize(("page", "name"), [("add-to-fastapi", "with_operation"), ("outbox-in-sqlalchemy", "with_outbox")])
def test_lines_of_a_how_to_are_those_of_its_example(page: str, name: str) -> None:
    before, after = ((ROOT / "examples" / "adopt" / f"{each}.py").read_text(encoding="utf-8").splitlines()[1:] for each in ("before", name))
    lines = difflib.unified_diff(before, after, lineterm="", n=0)
    changed = [line for line in lines if line[:1] in {"+", "-"} and line[:3] not in {"+++", "---"} and line[1:].strip()]
    shown = re.findall(r"```diff\n(.*?)```", (ROOT / "docs" / "how-to" / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown[0].splitlines() == changed
