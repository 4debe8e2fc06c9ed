"""The picture beside the figures: how far each row is from its target."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.report import LATEST, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GOOD, BAD = "#2a7f62", "#b5422c"
FLOOR, CEILING = 0.1, 8.0  # bars end here: a figure far below or above its bar needs no longer one


def reach(entry: dict[str, Any]) -> float | None:
    """Give how many times a figure reaches its target: 1 is the bar, more is better, for both kinds of bound."""
    figure = entry["ratio"] if entry["ratio"] is not None else entry["ours"]
    if figure is None or not entry["target"]:
        return None
    if entry["bound"] == "at most":
        return CEILING if figure <= 0 else entry["target"] / figure
    return figure / entry["target"]


def label(entry: dict[str, Any]) -> str:
    """Say the figure and the bar."""
    figure = entry["ratio"] if entry["ratio"] is not None else entry["ours"]
    if figure is None:
        return "not measured"
    unit = "x" if entry["ratio"] is not None else f" {entry['unit']}"
    if entry["target"] is None:
        return f"{figure:.3g}{unit} (measured only)"
    return f"{figure:.3g}{unit}  (bar: {entry['bound']} {entry['target']:g}{unit})"


def draw(entries: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw one bar an entry: the distance to its bar on a logarithmic axis, green where it holds."""
    mpl.use("Agg")
    figure, axes = plt.subplots(figsize=(12, 1.6 + 0.46 * len(entries)), layout="constrained")
    rows = list(reversed(entries))
    ends = [min(CEILING, max(FLOOR, reach(entry) or FLOOR)) for entry in rows]
    colours = [GOOD if entry["holds"] else BAD for entry in rows]
    axes.barh(range(len(rows)), [end - FLOOR for end in ends], left=FLOOR, color=colours, height=0.62)
    for place, (entry, end) in enumerate(zip(rows, ends, strict=True)):
        at = FLOOR if reach(entry) is None else max(end, 1.0)
        axes.text(at * 1.05, place, label(entry), va="center", fontsize=9)
    axes.axvline(1.0, color="black", linewidth=1.2, zorder=0)
    axes.set_xscale("log")
    axes.set_xlim(FLOOR, CEILING * 5)
    ticks = (0.1, 0.25, 0.5, 1, 2, 4, 8)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [textwrap.fill(entry["name"], 44) for entry in rows], fontsize=9)
    axes.set_xlabel("times the bar (1 = the bar, further right is better; green holds)", loc="left")
    axes.set_title(f"Linkspan against its bars\n{rows[0]['machine'] if rows else ''}", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    draw(load(), LATEST.with_suffix(".png"))
