"""`python -m benchmarks.run`: measure both sides, write `results/latest.json`, draw `results/latest.png`."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import plot, report
from benchmarks.harness import BenchError, Effort
from benchmarks.rows import ROWS, Bench


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=f"measure these rows only: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, help="rounds of each side, interleaved (default 5 or what a row needs, with --quick 3)")
    parser.add_argument("--quick", action="store_true", help="two minutes instead of twelve: fewer and shorter rounds, and not every row")
    return parser.parse_args()


def measure(name: str, effort: Effort) -> list[report.Entry]:
    """Measure one row; a side that fails makes entries that do not hold, with the reason."""
    row = ROWS[name]
    show(f"\n{name}: {'; '.join(goal.name for goal in row.goals)}  (at most {effort.budget:.0f} s)")
    before = Usage.now()
    try:
        with Bench(effort, show) as bench:
            entries = row.run(bench)
    except BenchError as error:
        show(f"{name}: {error}")
        entries = [report.not_measured(goal, str(error).splitlines()[0]) for goal in row.goals]
    seconds, others = Usage.now().since(before)
    for entry in entries:
        entry.detail["others_busy"] = round(others, 2)
    busy = f", other programs used {others:.0%} of the machine: read ratios and CPU, not rates" if others > 0.1 else ""
    show(f"{name}: {seconds:.0f} s{busy}")
    return entries


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds: the clock, the CPU time of the whole machine, and that of this run and its ended children."""

    wall: float
    machine: float
    own: float

    @classmethod
    def now(cls) -> Usage:
        """Read the clocks."""
        # user nice system idle iowait irq softirq steal, in ticks (proc_stat(5)); waiting and stolen time is nobody's work here.
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:8]]
        machine = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return cls(time.monotonic(), machine, sum(each.ru_utime + each.ru_stime for each in used))

    def since(self, before: Usage) -> tuple[float, float]:
        """Give the seconds that passed and the share of the machine's cores that other programs used."""
        seconds = self.wall - before.wall
        others = (self.machine - before.machine) - (self.own - before.own)
        return seconds, max(0.0, others / seconds / (os.cpu_count() or 1))


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
    names = list(options.only or (name for name, row in ROWS.items() if row.quick or not options.quick))
    begin = time.monotonic()
    measured = []
    for name in names:
        budget = ROWS[name].budget * (0.25 if options.quick else 1.0)
        rounds = options.rounds or (3 if options.quick else ROWS[name].rounds)
        measured += measure(name, Effort(rounds, budget, 0.35 if options.quick else 1.0))
    order = [goal.name for row in ROWS.values() for goal in row.goals]
    kept = report.QUICK if options.quick else report.LATEST
    table = report.save(measured, order, kept)
    plot.draw(table, kept.with_suffix(".png"))
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
    show(f"\nwritten: {kept.relative_to(kept.parents[2])}, and the picture beside it")
    return 0 if all(accepted(entry, quick=options.quick) for entry in measured) else 1


if __name__ == "__main__":
    raise SystemExit(main())
