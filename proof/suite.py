"""Run a pytest suite as a row of the proof: `python -m proof.suite tests/contract --out FILE`."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Count what passed, failed and was not run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--resume", type=Path, help="not used: a suite is run whole")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", options.folder], check=False, capture_output=True, text=True)
    sys.stdout.write(done.stdout[-2000:])
    counts = {what.rstrip("s"): int(number) for number, what in re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout)}
    row = {
        "tried": f"{counts.get('passed', 0)} tests, {counts.get('skipped', 0)} not run",
        "violations": counts.get("failed", 0) + counts.get("error", 0),
        "holds": done.returncode == 0 and counts.get("passed", 0) > 0,
    }
    options.out.write_text(json.dumps(row) + "\n", encoding="utf-8")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
