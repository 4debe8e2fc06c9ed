"""Run the shop with its faults as a row of the proof and take its reconciliation: `python -m proof.shop --orders FILE --out ROW`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def row_of(found: dict[str, Any]) -> dict[str, Any]:
    """Turn the shop's report into a row."""
    broken = found["lost"] + found["double_effects"]
    tried = (
        f"{found['orders']} orders, {found['messages']} messages, {found['duplicates_injected']} duplicates injected, one service killed"
    )
    return {"tried": tried, "violations": broken, "holds": bool(found["reconciled"]) and broken == 0}


def main() -> int:
    """Run, and write the row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", help="a CSV of real orders")
    parser.add_argument("--seed", default="11")
    parser.add_argument("--count", default="2000")
    parser.add_argument("--resume", type=Path, help="not used: a run is whole")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.orders == "":
        options.out.write_text(json.dumps({"not_run": "LINKSPAN_ORDERS_CSV names no file"}) + "\n", encoding="utf-8")
        return 0
    source = ["--orders", options.orders] if options.orders else ["--seed", options.seed, "--count", options.count]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        code = subprocess.run([sys.executable, "-m", "examples.shop", *source, "--report", str(report)], check=False).returncode
        if not report.exists():
            row: dict[str, Any] = {"tried": "a run that ended without a report", "violations": 1, "holds": False}
        else:
            row = row_of(json.loads(report.read_text("utf-8")))
    options.out.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
