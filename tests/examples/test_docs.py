"""The Python that the pages show is run, each page in a process of its own: declarations are checked, tests in it pass."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = {page.stem: page for page in (ROOT / "docs").rglob("*.md") if "```python" in page.read_text(encoding="utf-8")}


@pytest.mark.parametrize("name", PAGES)
def test_python_of_page_runs(name: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGES[name].read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / f"page_{name.replace('-', '_')}.py"
    file.write_text("\n\n".join(blocks), encoding="utf-8")
    tests = re.findall(r"^(?:async )?def (test_\w+)", "\n".join(blocks), re.MULTILINE)
    if tests:  # as a user runs them: fixtures of the plugin, async tests
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(file)]
    else:
        command = [sys.executable, "-c", f"import {file.stem} as page; print(page.app.services)"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert not tests or f"{len(tests)} passed" in done.stdout
