"""Completion in a real bash: the script that the command prints, and what it offers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from linkspan.cli.new import make

ROOT = Path(__file__).resolve().parents[2]
LINKSPAN = Path(sys.executable).parent / "linkspan"

SCRIPT = """
source <(linkspan --show-completion)
COMP_WORDS=({words}); COMP_CWORD={index}
_linkspan_completion linkspan
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make("my-shop", tmp_path)
    return tmp_path / "my-shop"


def offered(folder: Path, words: str) -> list[str]:
    """Return what bash offers for the last word."""
    if shutil.which("bash") is None:
        pytest.skip("not run: bash is not on this machine")
    environment = {**os.environ, "PATH": f"{LINKSPAN.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}
    script = SCRIPT.format(words=words, index=len(words.split()) - 1)
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes_commands_and_options(project: Path) -> None:
    assert offered(project, "linkspan ta") == ["tap"]
    assert offered(project, "linkspan broker a") == ["apply"]
    assert "--show-trace" in offered(project, "linkspan call place_order --sh")


def test_bash_completes_the_operations_of_the_folder(project: Path) -> None:
    assert offered(project, "linkspan call place") == ["place_order"]


def test_folder_without_an_app_offers_nothing(tmp_path: Path) -> None:
    assert offered(tmp_path, "linkspan call place") == []
