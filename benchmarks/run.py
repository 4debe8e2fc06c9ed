"""`python -m benchmarks.run`: measure both sides, write `results/latest.json`, draw `results/latest.png`."""

from __future__ import annotations

import argparse
import os
import sys
import time

from benchmarks import plot, report
from benchmarks.harness import BenchError, Effort
from benchmarks.rows import ROWS, Bench


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=f"measure these rows only: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, help="rounds of each side, interleaved (default 5, with --quick 3)")
    parser.add_argument("--quick", action="store_true", help="two minutes instead of eight: fewer and shorter rounds")
    return parser.parse_args()


def measure(name: str, effort: Effort) -> list[report.Entry]:
    """Measure one row; a side that fails makes entries that do not hold, with the reason."""
    row = ROWS[name]
    begin, load = time.monotonic(), os.getloadavg()[0]
    show(f"\n{name}: {'; '.join(goal.name for goal in row.goals)}  (at most {effort.budget:.0f} s, load before {load:.2f})")
    try:
        with Bench(effort, show) as bench:
            entries = row.run(bench)
    except BenchError as error:
        show(f"{name}: {error}")
        entries = [report.not_measured(goal, str(error).splitlines()[0]) for goal in row.goals]
    for entry in entries:
        entry.detail["load_before"] = round(load, 2)
    show(f"{name}: {time.monotonic() - begin:.0f} s")
    return entries


def show(text: str) -> None:
    """Print at once: a run takes minutes, and silence looks like a hang."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def accepted(entry: report.Entry, *, quick: bool) -> bool:
    """Tell whether an entry is fit to end with success; a quick run is too short to fail for a bar, but must measure."""
    return entry.ours is not None if quick else entry.holds


def main() -> int:
    """Run the rows asked for; the exit code is 1 when a row falls short or could not be measured."""
    options = parse()
    names = list(options.only or ROWS)
    begin = time.monotonic()
    measured = []
    for name in names:
        budget = ROWS[name].budget * (0.25 if options.quick else 1.0)
        rounds = options.rounds or (3 if options.quick else 5)
        measured += measure(name, Effort(rounds, budget, 0.35 if options.quick else 1.0))
    order = [goal.name for row in ROWS.values() for goal in row.goals]
    table = report.save(measured, order)
    plot.draw(table)
    fresh = {entry.goal.name for entry in measured}
    show(f"\n{report.machine()}, {time.monotonic() - begin:.0f} s in all")
    said: set[str] = set()
    for entry in table:
        if entry["name"] in fresh:
            show(report.line(entry))
            settings = [f"             {role}: {text}" for role, text in entry.get("settings", {}).items()]
            for text in settings:
                if text not in said:
                    show(text)
            said.update(settings)
    show(f"\nwritten: {report.LATEST.relative_to(report.LATEST.parents[2])}, {report.PLOT.relative_to(report.PLOT.parents[2])}")
    return 0 if all(accepted(entry, quick=options.quick) for entry in measured) else 1


if __name__ == "__main__":
    raise SystemExit(main())
