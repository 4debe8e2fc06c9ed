"""`make proof`: try to break each promise and write `proof/latest.json`.

Each entry has `name`, `tried`, `violations`, `holds`, or `not_run` with the reason. The crash matrix keeps what it has done in
`.linkspan-proof/`, so a proof that was interrupted goes on where it stopped; `--fresh` begins anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
STATE = ROOT / ".linkspan-proof"


def crash_matrix(options: argparse.Namespace) -> dict[str, Any]:
    """Die at every named point, and at seeded pairs of them; restart, drain, check the history."""
    out = STATE / "crash.json"
    command = [sys.executable, "-m", "tests.crash.proof", "--points", "all", "--seeds", str(options.seeds), "--pairs", str(options.pairs)]
    subprocess.run([*command, "--resume", str(STATE / "crash.jsonl"), "--out", str(out)], cwd=ROOT, check=False)
    if not out.exists():
        return {"name": "crash matrix", "not_run": "it ended without a result: see above"}
    found = json.loads(out.read_text())
    return {
        "name": "nothing lost, nothing twice, order per key: a crash at every commit, publish and ack",
        "tried": f"{found['deaths']} deaths at {len(found['points'])} points, {found['acknowledged']} acknowledged requests",
        "violations": len(found["violations"]),
        "holds": bool(found["holds"]) and found["deaths"] > 0,
        "not_passed": found["not_passed"],
    }


def suite(name: str, folder: str) -> dict[str, Any]:
    """Run a pytest suite and count what failed and what was not run."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", folder], cwd=ROOT, check=False, capture_output=True, text=True)
    sys.stdout.write(done.stdout[-2000:])
    counts = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    wrong = counts.get("failed", 0) + counts.get("error", 0)
    tried = f"{counts.get('passed', 0)} tests, {counts.get('skipped', 0)} not run"
    return {"name": name, "tried": tried, "violations": wrong, "holds": done.returncode == 0 and counts.get("passed", 0) > 0}


def shop(name: str, arguments: list[str]) -> dict[str, Any]:
    """Run the shop with its faults and take its reconciliation."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run([sys.executable, "-m", "examples.shop", *arguments, "--report", str(report)], cwd=ROOT, check=False)
        if not report.exists():
            return {"name": name, "tried": "a run that ended without a report", "violations": 1, "holds": False}
        found = json.loads(report.read_text())
    tried = (
        f"{found['orders']} orders, {found['messages']} messages, {found['duplicates_injected']} duplicates injected, one service killed"
    )
    broken = found["lost"] + found["double_effects"]
    return {"name": name, "tried": tried, "violations": broken, "holds": bool(found["reconciled"]) and broken == 0}


def entries(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run every proof."""
    found = [crash_matrix(options)]
    found.append(suite("brokers keep the contract, through restarts, with and without the hot path", "tests/contract"))
    found.append(suite("broker killed, store away, disk full, duplicates, poison", "tests/crash"))
    found.append(shop("seeded orders reconcile to the cent and the piece", ["--seed", "11", "--count", "2000"]))
    orders = os.environ.get("LINKSPAN_ORDERS_CSV", "")
    if orders:
        found.append(shop("real orders reconcile to the cent and the piece", ["--orders", orders]))
    else:
        found.append({"name": "real orders reconcile to the cent and the piece", "not_run": "LINKSPAN_ORDERS_CSV names no file"})
    return found


def main() -> int:
    """Read the options, prove, write; exit with 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="proof", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="seeds of combined crashes (default: 1)")
    parser.add_argument("--pairs", type=int, default=20, help="combined crashes per seed (default: 20)")
    parser.add_argument("--fresh", action="store_true", help="forget what an interrupted proof has done")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir(exist_ok=True)
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    found = [{**entry, "machine": machine, "when": started} for entry in entries(options)]
    (HERE / "latest.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(STATE, ignore_errors=True)
    for entry in found:
        state = "not run" if "not_run" in entry else "holds" if entry["holds"] else "BROKEN"
        print(f"{state:8} {entry['name']}: {entry.get('not_run') or entry['tried']}")
    return 0 if all(entry.get("holds", True) for entry in found) else 1


if __name__ == "__main__":
    sys.exit(main())
