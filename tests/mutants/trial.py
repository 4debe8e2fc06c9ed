"""Trying a mutant: a copy of the source with one patch, its killing test in a process of its own, and what came of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.mutants.patches import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from concurrent.futures import Future, ThreadPoolExecutor

    from tests.mutants.patches import Patch

__all__ = ["AT_ONCE", "Verdict", "begin", "on_clean_code", "tried"]

AT_ONCE = max(2, os.cpu_count() or 1) + 1
"""Mutants tried side by side: one more than there are processors, as a test often waits for what a mutant never does."""
LIMIT = 150.0
"""Seconds after which a killing test is ended from outside; its own time limit is shorter."""
PATIENCE = "4"
"""Seconds that tests on a fake clock wait for what does not come."""
PROOFS = frozenset({"AssertionError", "TimeoutError", "Failed", "Error", "SetupError", "WorkloadError"})
"""By what a killing test may fail: what it asserts, its time limit, an error that users would see. Others mean that nothing was tried."""
_PASSED, _FAILED = 0, 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant. `skipped` tells that its killing test could not be run here; `said` is what to know or to do."""

    name: str
    killer: str
    caught: bool
    said: str
    seconds: float
    skipped: bool = False


def begin(patches: Iterable[Patch], pool: ThreadPoolExecutor) -> Mapping[str, Future[Verdict]]:
    """Begin to try patches, each in a folder of its own that is gone afterwards."""
    return {patch.name: pool.submit(tried, patch) for patch in patches}


def tried(patch: Patch) -> Verdict:
    """Try one patch."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"linkspan-mutant-{patch.name}-", ignore_cleanup_errors=True) as folder:
        problem = _mutate(patch, Path(folder))
        caught, said, skipped = (False, problem, False) if problem else _judge(*_run(patch.killer, Path(folder)), Path(folder))
    return Verdict(patch.name, patch.killer, caught, said, round(time.monotonic() - begun, 1), skipped)


def on_clean_code(killers: Iterable[str]) -> str:
    """Run killing tests on the code as it is; return what failed, '' where all passed."""
    with tempfile.TemporaryDirectory(prefix="linkspan-clean-", ignore_cleanup_errors=True) as folder:
        _copy(Path(folder))
        code, output = _run([*dict.fromkeys(killers)], Path(folder), limit=1800.0, more=["--no-header"])
        return "" if code == _PASSED else output[-4000:]


def _copy(folder: Path) -> None:
    shutil.copytree(ROOT / "src", folder / "src")


def _mutate(patch: Patch, folder: Path) -> str:
    """Put the source with the patch into a folder; return what is wrong with the patch, '' where nothing is."""
    _copy(folder)
    command = ["git", "apply", "-C1", "--whitespace=nowarn", str(patch.path)]
    outside = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}  # the copy belongs to no repository
    done = subprocess.run(command, cwd=folder, env=outside, check=False, capture_output=True, text=True)
    if done.returncode or not patch.files:
        why = done.stderr.strip() or "it changes nothing"
        return f"The patch does not apply ({why}): make the same fault in the code as it is now, and write `git diff` into the patch."
    for file in patch.files:
        if (folder / file).read_bytes() == (ROOT / file).read_bytes():
            return f"The patch left '{file}' as it was: make the fault anew, and write `git diff` into the patch."
        for stale in (folder / file).parent.glob(f"__pycache__/{Path(file).stem}.*.pyc"):
            stale.unlink()
    return ""


def _run(killer: str | list[str], folder: Path, *, limit: float = LIMIT, more: Iterable[str] = ("-x",)) -> tuple[int, str]:
    """Run tests on the linkspan of a folder; return pytest's exit code and what it said, -1 where it found no end."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**kept, "PYTHONPATH": str(folder / "src"), "LINKSPAN_MUTANT": str(folder), "LINKSPAN_TEST_PATIENCE": PATIENCE}
    command = [sys.executable, "-m", "pytest", "-q", *more, "-p", "tests.mutants.watcher", "-p", "no:cacheprovider"]
    command += [f"--basetemp={folder / 'tests'}", *([killer] if isinstance(killer, str) else killer)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return -1, output
    return process.returncode, output


def _judge(code: int, output: str, folder: Path) -> tuple[bool, str, bool]:
    """Say whether a mutant was caught, in words, and whether its test could not be run here."""
    reports = _reports(folder / "report.jsonl")
    failed = [report for report in reports if report["outcome"] == "failed"]
    if code == _FAILED:
        proofs = [report for report in failed if report["when"] == "call" and PROOFS.intersection(report["kinds"])]
        if proofs:
            return True, f"{', '.join(proofs[0]['kinds'])}: {proofs[0]['said']}"[:300], False
        what = ", ".join(f"{'/'.join(report['kinds'])} in its {report['when']} ({report['said']})" for report in failed)
        return False, f"The test broke by {what}, which proves nothing: mend the patch, so that the code runs and is wrong.", False
    if code == _PASSED and any(report["outcome"] == "skipped" for report in reports):
        return False, next(report["said"] for report in reports if report["outcome"] == "skipped"), True
    if code == _PASSED:
        return False, "The mutant survived: name a test that fails on it after 'killed-by:', or write the one that is missing.", False
    if code < 0:
        return False, f"The test found no end in {LIMIT:g} s: name one with a time limit of its own.", False
    return False, f"pytest ended with {code}, so that nothing was tried: mend the node id or the patch.\n{output[-1500:]}", False


def _reports(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
