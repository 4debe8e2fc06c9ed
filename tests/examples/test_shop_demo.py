"""The demo as people run it: `python -m examples.shop`, with every fault, to its exit code and report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from examples.shop.__main__ import MARK, main

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    "orders",
    "settled",
    "refunded",
    "unmatched_refunds",
    "rejected_rows",
    "messages",
    "duplicates_injected",
    "duplicates_suppressed",
    "dead_letters",
    "lost",
    "double_effects",
    "reconciled",
}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "examples.shop", *map(str, arguments)]


def run_demo(arguments: Sequence[object], report: Path, timeout: float) -> tuple[str, dict[str, int]]:
    done = subprocess.run(command(*arguments, "--report", report), cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(report.read_text())


@pytest.mark.timeout(120)
def test_seeded_orders_end_reconciled_whatever_goes_wrong(tmp_path: Path) -> None:
    picture = tmp_path / "shop.svg"

    printed, report = run_demo(["--seed", 3, "--count", 120, "--svg", picture], tmp_path / "report.json", 110)

    assert set(report) == KEYS
    assert report["orders"] == 120
    assert 0 < report["settled"] < 120
    assert report["reconciled"] is True
    assert (report["lost"], report["double_effects"], report["dead_letters"]) == (0, 0, 1)
    assert report["duplicates_injected"] == report["duplicates_suppressed"] > 0
    assert report["messages"] > 7 * report["settled"]
    assert re.search(r"payments was killed with [1-9][0-9]* messages unacknowledged", printed)
    assert "inventory slow" in printed
    assert "RECONCILED to the cent and the piece" in printed
    assert picture.read_text().startswith("<svg")


@pytest.mark.timeout(300)
def test_the_real_file_ends_reconciled(tmp_path: Path) -> None:
    orders = os.environ.get("LINKSPAN_ORDERS_CSV", "")
    if not orders:
        pytest.skip("not run: LINKSPAN_ORDERS_CSV does not name the December 2010 file")

    _, report = run_demo(["--orders", orders], tmp_path / "report.json", 290)

    assert (report["orders"], report["rejected_rows"], report["unmatched_refunds"]) == (1559, 273, 439)
    assert report["reconciled"] is True


@pytest.mark.timeout(120)
def test_serve_prints_lines_that_work(tmp_path: Path) -> None:
    with subprocess.Popen(command("--count", 10, "--serve", "--data", tmp_path), cwd=ROOT, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        lines: list[str] = []
        for line in demo.stdout:
            lines.append(line.strip())
            if len(lines) > 1 and not lines[-1] and "linkspan outbox status" in lines[-2]:
                break
        curls = [line for line in lines if line.startswith("curl ")]
        answers = [json.loads(subprocess.run(line, shell=True, capture_output=True, check=True).stdout) for line in curls[:1]]
        shown = [
            subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, text=True, check=True).stdout
            for line in lines
            if line.startswith("LINKSPAN_DATA=")
        ]
        demo.send_signal(signal.SIGINT)
        code = demo.wait(timeout=60)

    assert code == 0
    assert answers == [{"orderId": "900001", "pieces": "6", "cents": "1530"}]
    assert "Payments.Charge" in shown[0]
    assert "storefront" in shown[1]
    assert any("nats --context" in line for line in lines)
    assert any("RECONCILED" in line for line in lines)


def test_without_a_file_of_orders_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--orders", str(tmp_path / "nowhere.csv")]) == 2
    assert "give the path of a CSV file" in capsys.readouterr().err


def test_it_empties_only_folders_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "diary.txt").write_text("dear diary")

    assert main(["--data", str(tmp_path)]) == 2

    assert "holds other files" in capsys.readouterr().err
    assert (tmp_path / "diary.txt").exists()
    assert not (tmp_path / MARK).exists()
