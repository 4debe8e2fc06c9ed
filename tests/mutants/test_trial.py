"""The trial itself: it lets nothing count as caught that was not."""

from __future__ import annotations

from difflib import unified_diff
from typing import TYPE_CHECKING

import pytest

from tests.mutants.patches import ROOT, SOURCE, Patch
from tests.mutants.trial import tried

if TYPE_CHECKING:
    from pathlib import Path

KILLER = "tests/unit/test_expiry.py::test_a_command_expires_by_its_sender_or_its_contract"
FILE = f"{SOURCE}/when.py"


def patch(folder: Path, old: str, new: str, killer: str = KILLER) -> Patch:
    """Write a patch of one file."""
    before = (ROOT / FILE).read_text(encoding="utf-8")
    after = before.replace(old, new)
    diff = unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{FILE}", f"b/{FILE}")
    path = folder / "tried.patch"
    path.write_text(f"breaks: something\nkilled-by: {killer}\n\n{''.join(diff)}", encoding="utf-8")
    return Patch.read(path)


def test_a_mutant_that_its_test_fails_on_is_caught(tmp_path: Path) -> None:
    verdict = tried(patch(tmp_path, "min(self.expires, by_contract)", "max(self.expires, by_contract)"))

    assert verdict.caught
    assert verdict.said.startswith("AssertionError")


def test_a_mutant_that_changes_nothing_is_seen_to_survive(tmp_path: Path) -> None:
    verdict = tried(patch(tmp_path, "SKEW: Final = 1.0\n", "SKEW: Final = 1.0  # a second\n"))

    assert not verdict.caught
    assert "survived" in verdict.said


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def is_over(", "def is_over_now("),
        ("def is_over(expires: float, now: float) -> bool:", "def is_over(expires: float, now: float) -> bool"),
        (
            "    def until(self, now: float, declared: float | None) -> float:",
            "    def until_when(self, now: float, declared: float) -> float:",
        ),
    ],
    ids=["import", "syntax", "attribute"],
)
def test_code_that_does_not_run_proves_nothing(tmp_path: Path, old: str, new: str) -> None:
    verdict = tried(patch(tmp_path, old, new))

    assert not verdict.caught
    assert "mend" in verdict.said


def test_a_patch_that_does_not_apply_is_told(tmp_path: Path) -> None:
    path = tmp_path / "tried.patch"
    path.write_text(f"breaks: x\nkilled-by: {KILLER}\n\n--- a/{FILE}\n+++ b/{FILE}\n@@ -1 +1 @@\n-not there\n+any more\n", encoding="utf-8")

    verdict = tried(Patch.read(path))

    assert not verdict.caught
    assert "does not apply" in verdict.said


def test_a_killer_that_is_not_there_is_told(tmp_path: Path) -> None:
    verdict = tried(patch(tmp_path, "min(self.expires", "max(self.expires", "tests/unit/test_expiry.py::test_of_nothing"))

    assert not verdict.caught
    assert "node id" in verdict.said


def test_a_patch_without_a_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tried.patch").write_text("breaks: x\n\n--- a/x\n", encoding="utf-8")

    with pytest.raises(ValueError, match="'killed-by'"):
        Patch.read(tmp_path / "tried.patch")
