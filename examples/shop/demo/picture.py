"""The run as a picture in the terminal; `drawing` makes the same as SVG."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from examples.shop.demo.measure import quantile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from examples.shop.demo.measure import Edge, Timeline

__all__ = ["place", "terminal"]

_BARS = " ▁▂▃▄▅▆▇█"
_DECADE = 7  # columns for a factor of ten
_FAST, _DECADES = 0.001, 4  # the scale begins at 1 ms and ends at 10 s


def terminal(edges: Sequence[Edge], timeline: Timeline) -> Iterator[str]:
    """Yield lines: latency of each path on one logarithmic scale, then flow over time with the faults under it."""
    marks = "".join(f"{mark:<{_DECADE}}" for mark in ("1 ms", "10 ms", "0.1 s", "1 s", "10 s"))
    yield f"{'path':<8} {'from → to':<26} {'what':<26} {'count':>6} {'p50':>8} {'p99':>8}  {marks}"
    for edge in edges:
        p50, p99 = (_short(quantile(edge.seconds, share)) for share in (0.5, 0.99))
        failed = f"  {edge.failed} without an answer" if edge.failed else ""
        way = f"{edge.source} → {edge.target}"
        yield f"{edge.path:<8} {way:<26} {edge.what:<26} {len(edge.seconds):>6} {p50:>8} {p99:>8}  {_spread(edge.seconds)}{failed}"
    yield ""
    for flow in timeline.flows:
        yield f"{flow.what:>8} {_bars(flow.values)} up to {max(flow.values, default=0):.0f} {flow.unit}"
    yield f"{'':>8} {'0 s':<{len(timeline.flows[0].values) - 2}}{timeline.seconds:.0f} s"
    for at, text in timeline.events:
        pointer = f"{' ' * timeline.slot(at)}▲"
        yield f"{'':>8} {pointer} {text}" if len(pointer) < 40 else f"{'':>8} {text:>{len(pointer) - 2}} ▲"


def place(seconds: float) -> float:
    """Map seconds to 0..1 on the logarithmic scale."""
    return min(1.0, max(0.0, math.log10(max(seconds, 1e-9) / _FAST) / _DECADES))


def _spread(seconds: Sequence[float]) -> str:
    slots = [0] * (_DECADE * _DECADES + 1)
    for value in seconds:
        slots[int(place(value) * _DECADE * _DECADES)] += 1
    return _bars(slots)


def _bars(values: Sequence[float]) -> str:
    top = max(values, default=0) or 1
    return "".join(_BARS[math.ceil(value / top * (len(_BARS) - 1))] for value in values)


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
