"""Right use of the API has no findings in mypy and pyright, both strict; every wrong use is flagged by both.

The cases are the lines of `cases/` with a `# wrong: ...` mark; all other lines are right use. A file with a `# Needs ...`
head waits for the names it needs: until `linkspan` exports them, each of its cases says that it was not run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

import linkspan

ROOT = Path(__file__).parents[2]
CASES = Path(__file__).parent / "cases"
CHECKERS = ("mypy", "pyright")
Findings: TypeAlias = dict[str, dict[Path, dict[int, str]]]


@dataclass(frozen=True)
class Case:
    name: str
    file: Path
    lines: tuple[int, ...]  # a decorator's finding may stand at the function under it


def missing_name(file: Path) -> str:
    """Return the first name that a case file needs and that does not exist yet, or ''."""
    head = re.match(r"# Needs (.*)", file.read_text())
    for dotted in head[1].split(", ") if head else ():
        value: object = linkspan
        for part in dotted.split("."):
            value = getattr(value, part, None)
        if value is None:
            return dotted
    return ""


def cases_of(file: Path) -> list[Case]:
    found: list[Case] = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if mark := re.search(r"# wrong: (.*)", line):
            found.append(Case(mark[1], file, (number, number + 1) if line.startswith("@") else (number,)))
    return found


FILES = sorted(CASES.glob("*.py"))
MISSING = {file: missing_name(file) for file in FILES}
WRONG = [case for file in FILES for case in cases_of(file)]


def run_mypy(config: Path) -> subprocess.Popen[str]:
    settings = config / "mypy.ini"
    settings.write_text(f"[mypy]\nstrict = true\npython_version = 3.11\nmypy_path = {ROOT / 'src'}:{CASES}\n")
    options = ["--config-file", str(settings), "--output", "json", "--cache-dir", str(ROOT / ".mypy_cache" / "typing")]
    return start([sys.executable, "-m", "mypy", *options, *map(str, FILES)])


def run_pyright() -> subprocess.Popen[str]:
    return start([sys.executable, "-m", "pyright", "-p", str(CASES.parent), "--pythonpath", sys.executable, "--outputjson"])


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CASES)


def read_mypy(output: str) -> list[tuple[Path, int, str]]:
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [((CASES / row["file"]).resolve(), row["line"], row["message"]) for row in rows if row["severity"] == "error"]


def read_pyright(output: str) -> list[tuple[Path, int, str]]:
    rows = json.loads(output)["generalDiagnostics"]
    return [(Path(row["file"]).resolve(), row["range"]["start"]["line"] + 1, row["message"]) for row in rows if row["severity"] == "error"]


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """Run each checker once, both at the same time."""
    config = tmp_path_factory.mktemp("typing")
    runs = {"mypy": (run_mypy(config), read_mypy), "pyright": (run_pyright(), read_pyright)}
    found: Findings = {}
    for checker, (process, read) in runs.items():
        output, problem = process.communicate(timeout=55)
        assert process.returncode in (0, 1), f"{checker} could not run: {output[-500:]}{problem[-500:]}"
        by_file: dict[Path, dict[int, str]] = defaultdict(dict)
        for file, line, message in read(output):
            by_file[file][line] = message
        found[checker] = by_file
    return found


def skip_if_missing(file: Path, what: str) -> None:
    if MISSING[file]:
        pytest.skip(f"not run: {what} needs {MISSING[file]}")


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.name)
def test_wrong_use_is_flagged(case: Case, checker: str, findings: Findings) -> None:
    skip_if_missing(case.file, case.name)
    assert any(line in findings[checker][case.file] for line in case.lines)


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_right_use_has_no_findings(file: Path, checker: str, findings: Findings) -> None:
    skip_if_missing(file, file.stem)
    marked = {line for case in cases_of(file) for line in case.lines}
    assert {line: message for line, message in findings[checker][file].items() if line not in marked} == {}


def test_case_names_are_unique() -> None:
    names = [case.name for case in WRONG]
    assert sorted(names) == sorted(set(names))
    assert len(names) >= 25
