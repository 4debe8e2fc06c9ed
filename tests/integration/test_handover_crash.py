"""A process dies between the commit of somebody else's transaction and the broker: what it had committed arrives, once and in order."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy", reason="not run: sqlalchemy is not installed")

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, point: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.integration.handover_child", str(folder), point]
    return subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize("point", ["commit", "handover.move.before", "handover.move.after", "relay.publish.before", "relay.publish.after"])
def test_death_after_the_commit_loses_nothing_and_repeats_nothing(tmp_path: Path, point: str) -> None:
    first = run(tmp_path, point)
    assert first.returncode == -signal.SIGKILL, first.stderr
    second = run(tmp_path, "none")
    assert second.returncode == 0, second.stderr
    rows = [line.split() for line in second.stdout.splitlines()]
    for key in ("a", "b"):
        assert [note for each, note, _ in rows if each == key] == [str(number) for number in range(10)]
    assert len({id_ for _, _, id_ in rows}) == 20
    assert counted(tmp_path / "orders.db") == [("a", 10), ("b", 10)]  # a message that entered the outbox twice would count twice


def counted(store: Path) -> list[tuple[str, int]]:
    with contextlib.closing(sqlite3.connect(store)) as connection:
        return connection.execute("select key, last from linkspan_sequence order by key").fetchall()
