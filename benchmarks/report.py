"""Entries of `results/latest.json`: made by a run from its samples, never by hand."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Sample, interval, median, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESULTS = Path(__file__).resolve().parent / "results"
LATEST = RESULTS / "latest.json"
"""The full run's figures, kept in the repository; the picture stands beside it."""
QUICK = RESULTS / "quick.json"
"""A quick run's figures: too short to be kept."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the table before it is measured.

    `target` bounds the ratio where there is a peer, the figure itself where there is none; `None` means measured only.
    `most` says that the target is an upper bound.
    """

    name: str
    target: float | None
    unit: str = "op/s"
    most: bool = False


@dataclass(slots=True)
class Entry:
    """One line of the table. `detail` holds what explains the figure: CPU, spread, rounds, settings, note."""

    goal: Goal
    ours: float | None
    peer: float | None = None
    holds: bool = False
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's; None without a peer."""
        return self.ours / self.peer if self.ours is not None and self.peer else None

    def judge(self) -> Entry:
        """Compute `holds` from the figures."""
        figure = self.ratio if self.peer else self.ours
        self.holds = figure is not None and meets(self.goal, figure)
        return self

    def plain(self, when: str) -> dict[str, Any]:
        """Give the entry as it is stored."""
        return {
            "name": self.goal.name,
            "ours": _short(self.ours),
            "peer": _short(self.peer),
            "ratio": _short(self.ratio),
            "target": self.goal.target,
            "holds": self.holds,
            "machine": machine(),
            "when": when,
            "unit": self.goal.unit,
            "bound": "at most" if self.goal.most else "at least",
            **self.detail,
        }


def meets(goal: Goal, figure: float) -> bool:
    """Compare a figure with a target; without a target everything holds."""
    if goal.target is None:
        return True
    return figure <= goal.target if goal.most else figure >= goal.target


def not_measured(goal: Goal, reason: str) -> Entry:
    """Make the entry of a row that failed: it never holds."""
    return Entry(goal, None, detail={"note": f"not measured: {reason}"})


def throughput(goal: Goal, ours: Sequence[Sample], peer: Sequence[Sample], *, limit: str = "", **detail: Any) -> Entry:
    """Compare operations per second, and CPU per operation pairwise where the bar lies inside the noise.

    The noise is what the rounds leave unsaid of their median ratio (`interval`): more rounds make it smaller.
    `limit` names the one process that bounds the rate of a side: its CPU is then what decides. Without it all processes count.
    """
    entry = Entry(goal, median(s.rate for s in ours), median(s.rate for s in peer), detail=detail).judge()
    rounds = list(zip(ours, peer, strict=False))
    pairs = [a.rate / b.rate for a, b in rounds]
    in_all = median(b.cpu_total / a.cpu_total for a, b in rounds)
    by_cpu = median(b.cpu[limit] / a.cpu[limit] for a, b in rounds) if limit else in_all
    entry.detail |= cpu_detail(ours, peer) | {"ratios": [_short(pair) for pair in pairs], "cpu_ratio": _short(in_all)}
    low, high = interval(pairs)
    if goal.target is not None and low < goal.target < high:
        entry.holds = meets(goal, by_cpu)
        whose = f"the {limit} process, which bounds the rate," if limit else "all processes"
        entry.detail["note"] = (
            f"the bar of {goal.target:g} lies inside the noise (median ratio of the rounds {low:.2f} to {high:.2f}), so CPU per "
            f"operation of {whose} decides, compared round by round: the peer needs {by_cpu:.2f} times ours"
        )
    return entry


def cpu_detail(ours: Sequence[Sample], peer: Sequence[Sample] = ()) -> dict[str, Any]:
    """Give CPU microseconds per operation by role, spread and rounds of both sides."""
    detail: dict[str, Any] = {"rounds": len(ours), "ours_cpu_us": roles(ours), "spread": {"ours": _short(spread([s.rate for s in ours]))}}
    if peer:
        detail["peer_cpu_us"] = roles(peer)
        detail["spread"]["peer"] = _short(spread([s.rate for s in peer]))
    return detail


def roles(samples: Sequence[Sample]) -> dict[str, float]:
    """Take the median CPU of each role."""
    return {role: round(median(s.cpu[role] for s in samples), 2) for role in samples[0].cpu}


def machine() -> str:
    """Name the machine by what matters to the figures."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = ".".join(platform.release().split(".")[:2])
    system = f"{platform.system()} {kernel}, {platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} cores, {model}, {memory:.0f} GB, {system}"


def now() -> str:
    """Give the moment of a run, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def save(entries: Iterable[Entry], order: Sequence[str], path: Path) -> list[dict[str, Any]]:
    """Write the entries; those of rows that were not run stay as they were. `order` lists all names there are."""
    when = now()
    stored = {entry["name"]: entry for entry in load(path)} | {entry.goal.name: entry.plain(when) for entry in entries}
    table = [stored[name] for name in order if name in stored]
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(table, indent=2) + "\n")
    return table


def load(path: Path = LATEST) -> list[dict[str, Any]]:
    """Read the entries of the last run."""
    return list(json.loads(path.read_text())) if path.exists() else []


def line(entry: dict[str, Any]) -> str:
    """Print one entry for people."""
    sign = "<=" if entry["bound"] == "at most" else ">="
    bar = "measured only" if entry["target"] is None else f"{sign} {entry['target']:g}"
    verdict = "holds" if entry["holds"] else "NOT MEASURED" if entry["ours"] is None else "FALLS SHORT"
    peer = "" if entry["peer"] is None else f"  peer {entry['peer']:,}  ratio {entry['ratio']:g}"
    ours = "-" if entry["ours"] is None else f"{entry['ours']:,}"
    note = f"\n      {entry['note']}" if "note" in entry else ""
    return f"{verdict:<13}{entry['name']:<72}  ours {ours} {entry['unit']}{peer}  ({bar}){note}"


def _short(value: float | None) -> float | None:
    # Four digits say more than these measurements know.
    if value is None:
        return None
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() else short
