"""Rows of the proof: `python -m tests.power.proof --cuts 100 --resume FILE --out FILE`, or `--traced 2000` for the trace of system calls.

Each seed is a machine of its own that is cut five times. Interrupted, it goes on where it stopped when given the same `--resume` file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.power.cuts import missing, power_cuts
from tests.power.test_sync_order import traced, untraceable

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE = 5


def done_before(resume: Path | None) -> list[dict[str, Any]]:
    """Return what an interrupted proof has found, a row for each machine."""
    if resume is None or not resume.exists():
        return []
    return [json.loads(line) for line in resume.read_text(encoding="utf-8").splitlines()]


async def cut(count: int, resume: Path | None) -> dict[str, Any]:
    """Cut, and return the row of the table."""
    if missing():
        return {"not_run": missing()}
    rows = done_before(resume)
    for seed in range(len(rows) + 1, -(-count // AT_ONCE) + 1):
        with tempfile.TemporaryDirectory(prefix="linkspan-power-") as folder:
            found = await power_cuts(Path(folder), AT_ONCE, seed)
        row = {
            "seed": seed,
            "cuts": found.cuts,
            "acknowledged": found.acknowledged,
            "violations": [f"{each.rule} {each.consumer} {each.id}" for each in found.violations],
        }
        rows.append(row)
        print(f"power cuts: {sum(each['cuts'] for each in rows)} of {count}, {len(row['violations'])} violations", flush=True)
        if resume is not None:
            with resume.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    cuts, acknowledged = sum(each["cuts"] for each in rows), sum(each["acknowledged"] for each in rows)
    violations = sum(len(each["violations"]) for each in rows)
    return {
        "tried": f"{cuts} cuts, {acknowledged} acknowledged orders",
        "violations": violations,
        "holds": violations == 0 and cuts >= count,
    }


async def trace(count: int) -> dict[str, Any]:
    """Trace, and return the row of the table."""
    if untraceable():
        return {"not_run": untraceable()}
    with tempfile.TemporaryDirectory(prefix="linkspan-power-") as folder:
        found = await traced(Path(folder), "always", count)
    wrong = sum(not each.sound for each in found)
    return {"tried": f"{count} publishes", "violations": wrong, "holds": wrong == 0 and count > 0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options; exit with 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=0, help="how often to cut the power")
    parser.add_argument("--traced", type=int, default=0, help="instead, how many publishes to trace")
    parser.add_argument("--resume", type=Path, help="a file of results, read and appended to")
    parser.add_argument("--out", type=Path, help="where the row goes as JSON")
    options = parser.parse_args(arguments)
    found = asyncio.run(trace(options.traced) if options.traced else cut(options.cuts, options.resume))
    text = json.dumps(found, indent=2)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if found.get("holds", True) else 1


if __name__ == "__main__":
    sys.exit(main())
