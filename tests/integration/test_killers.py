"""Messages that end the process that handles them: held after a few deaths, and no neighbour pays for it. Real processes, real NATS."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from linkspan.letters.parking import EACH_TIME
from tests.integration.nats_runner import NatsRunner

ROOT = Path(__file__).resolve().parents[2]
POISON, NEIGHBOURS, PAUSES = 2, 24, 2

pytestmark = pytest.mark.timeout(180)


async def test_killing_messages_are_dead_after_few_deaths_and_neighbours_lose_no_try(tmp_path: Path) -> None:
    store = tmp_path / "mail.db"
    async with NatsRunner(tmp_path) as server:
        url = server.url.replace("//", f"//{server.user}:{server.password}@")
        command = [sys.executable, "-m", "tests.integration.killers_child", str(tmp_path), url, f"sqlite:///{store}"]
        deaths = 0
        while True:
            ended = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, timeout=60, check=False)  # noqa: ASYNC221 - one thing at a time
            if ended.returncode == 0:
                break
            assert ended.returncode == -signal.SIGKILL, ended.stderr[-3000:]
            deaths += 1
            assert deaths <= 12, "It never ends."

    # Each poison: once as it came, once among suspects, then alone for each pause and once more. The first deaths may be shared.
    alone = PAUSES + 1
    assert POISON * alone <= deaths <= POISON * (alone + 2)
    with closing(sqlite3.connect(store)) as rows:
        letters = rows.execute("select key, state, error, attempts from linkspan_letter order by key, position").fetchall()
        handled = rows.execute("select key, note from handled order by key, note").fetchall()
        rounds = rows.execute("select error from linkspan_attempt").fetchall()
    assert [(key, state) for key, state, *_ in letters] == [(f"poison{each}", state) for each in (1, 2) for state in ("dead", "waiting")]
    assert all(error == EACH_TIME for _, state, error, _ in letters if state == "dead")
    assert handled == sorted((f"good{each}", str(number)) for each in range(NEIGHBOURS) for number in range(2))
    assert len(rounds) >= POISON * alone
    runs = [line.split() for line in (tmp_path / "runs.txt").read_text(encoding="utf-8").splitlines()]
    assert {attempt for order, _, attempt, *_ in runs if order.startswith("good")} == {"1"}  # nobody was blamed for another's deed
    assert len([order for order, note, *_ in runs if order.startswith("poison") and note == "1"]) == 0
