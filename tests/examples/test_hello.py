"""The smallest app: the README shows it as it is, and it runs."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HELLO = ROOT / "examples" / "hello" / "hello.py"


def test_readme_shows_the_file() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert f"```python\n{HELLO.read_text(encoding='utf-8')}```" in readme


def test_hello_fits_on_a_screen() -> None:
    assert len(HELLO.read_text(encoding="utf-8").splitlines()) <= 34
