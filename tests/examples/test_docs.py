"""The Python that the pages show is run: declarations are checked, tests in it pass."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PAGES = {page.stem: page for page in (ROOT / "docs").rglob("*.md") if "```python" in page.read_text(encoding="utf-8")}


@pytest.fixture(params=PAGES.values(), ids=PAGES.keys())
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModuleType]:
    """Make one module of all Python blocks of a page."""
    name = f"page_{request.param.stem.replace('-', '_')}"
    blocks = re.findall(r"```python\n(.*?)```", request.param.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / f"{name}.py"
    file.write_text("\n\n".join(blocks), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]


def test_python_of_page_runs(page: ModuleType, tmp_path: Path) -> None:
    tests = [name for name, _ in inspect.getmembers(page, inspect.isfunction) if name.startswith("test_")]
    if tests:  # as a user runs them: fixtures of the plugin, async tests
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(page.__file__)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
        assert f"{len(tests)} passed" in done.stdout, done.stdout + done.stderr

    assert tests or page.app
