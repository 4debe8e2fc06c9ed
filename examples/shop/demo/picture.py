"""The run as a picture: in the terminal, and as an SVG file."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from examples.shop.demo.measure import quantile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from examples.shop.demo.measure import Edge, Flow

__all__ = ["svg", "terminal"]

_BARS = " ▁▂▃▄▅▆▇█"
_SLOTS = 24
_FAST, _SLOW = 0.001, 10.0  # seconds at the ends of the scale


def terminal(edges: Sequence[Edge], flows: Sequence[Flow], events: Sequence[tuple[float, str]], begin: float) -> Iterator[str]:
    """Yield lines: latency of each path on one logarithmic scale, then flow by second with the faults under it."""
    scale = f"{'1 ms':<{_SLOTS // 4}}{'10 ms':<{_SLOTS // 4}}{'0.1 s':<{_SLOTS // 4}}{'1 s':<{_SLOTS // 4 - 4}}10 s"
    yield f"{'path':<8} {'from → to':<26} {'what':<27} {'count':>6} {'p50':>8} {'p99':>8}  {scale}"
    for edge in edges:
        p50, p99 = (_short(quantile(edge.seconds, share)) for share in (0.5, 0.99))
        failed = f"  {edge.failed} without an answer" if edge.failed else ""
        way = f"{edge.source} → {edge.target}"
        yield f"{edge.path:<8} {way:<26} {edge.what:<27} {len(edge.seconds):>6} {p50:>8} {p99:>8}  {_spread(edge.seconds)}{failed}"
    yield ""
    yield "orders a second, from the first second on"
    for each in flows:
        yield f"{each.what:>8} {_bars(each.per_second)}  at most {max(each.per_second, default=0)}/s"
    for at, text in events:
        second = max(0, int(at - begin))
        yield f"{'':>8} {' ' * second}▲ {text}"


def _spread(seconds: Sequence[float]) -> str:
    slots = [0] * _SLOTS
    for value in seconds:
        slots[int(_place(value) * (_SLOTS - 1))] += 1
    return _bars(slots)


def _bars(values: Sequence[int]) -> str:
    top = max(values, default=0) or 1
    return "".join(_BARS[math.ceil(value / top * (len(_BARS) - 1))] for value in values)


def _place(seconds: float) -> float:
    """Map seconds to 0..1 on the logarithmic scale."""
    return min(1.0, max(0.0, math.log10(max(seconds, 1e-9) / _FAST) / math.log10(_SLOW / _FAST)))


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


# --- the same as SVG ---------------------------------------------------------------------------------

_COLOURS = {"direct": "#2b6cb0", "durable": "#c05621", "placed": "#2b6cb0", "paid": "#2f855a", "shipped": "#c05621"}
_LEFT, _WIDTH, _ROW = 330, 600, 22


def svg(edges: Sequence[Edge], flows: Sequence[Flow], events: Sequence[tuple[float, str]], begin: float) -> str:
    """Draw p50 to p99 of each path on a logarithmic scale, and below it the flow by second with the faults."""
    top = 50 + _ROW * len(edges)
    body = [*_axis(top), *_latencies(edges), *_flows(flows, top + 60), *_faults(flows, events, begin, top + 60)]
    height = top + 280 + 16 * len(events)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="960" height="{height}" font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
            '<text x="10" y="20" font-size="14">Latency per path: p50 to p99</text>',
            *body,
            "</svg>\n",
        ]
    )


def _axis(bottom: int) -> Iterator[str]:
    for seconds, label in ((0.001, "1 ms"), (0.01, "10 ms"), (0.1, "0.1 s"), (1.0, "1 s"), (10.0, "10 s")):
        x = _LEFT + _place(seconds) * _WIDTH
        yield f'<line x1="{x:.0f}" y1="30" x2="{x:.0f}" y2="{bottom - 14}" stroke="#ddd"/>'
        yield f'<text x="{x:.0f}" y="{bottom}" text-anchor="middle" fill="#555">{label}</text>'


def _latencies(edges: Sequence[Edge]) -> Iterator[str]:
    for row, edge in enumerate(edges):
        y = 42 + row * _ROW
        x1, x2 = (_LEFT + _place(quantile(edge.seconds, share)) * _WIDTH for share in (0.5, 0.99))
        label = escape(f"{edge.source} → {edge.target}: {edge.what}")
        yield f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{label}</text>'
        yield f'<rect x="{x1:.1f}" y="{y - 6}" width="{max(3.0, x2 - x1):.1f}" height="12" rx="3" fill="{_COLOURS[edge.path]}"/>'


def _flows(flows: Sequence[Flow], top: int) -> Iterator[str]:
    yield f'<text x="10" y="{top - 16}" font-size="14">Orders a second</text>'
    highest = max((value for each in flows for value in each.per_second), default=0) or 1
    for row, each in enumerate(flows):
        step = _WIDTH / max(1, len(each.per_second))
        points = " ".join(
            f"{_LEFT + (i + 0.5) * step:.1f},{top + 160 - value / highest * 160:.1f}" for i, value in enumerate(each.per_second)
        )
        yield f'<polyline points="{points}" fill="none" stroke-width="2" stroke="{_COLOURS[each.what]}"/>'
        label = f"{each.what}: at most {max(each.per_second, default=0)}/s"
        yield f'<text x="10" y="{top + 20 + row * 18}" fill="{_COLOURS[each.what]}">{label}</text>'


def _faults(flows: Sequence[Flow], events: Sequence[tuple[float, str]], begin: float, top: int) -> Iterator[str]:
    length = max((len(each.per_second) for each in flows), default=1)
    for row, (at, text) in enumerate(events):
        x, y = _LEFT + (at - begin) / length * _WIDTH, top + 180 + row * 16
        yield f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{y - 8}" stroke="#999" stroke-dasharray="3 3"/>'
        yield f'<text x="{x:.1f}" y="{y + 4}" text-anchor="middle" fill="#555">{escape(text)}</text>'
