"""The run's picture as an SVG file."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from examples.shop.demo.measure import SLOTS, quantile
from examples.shop.demo.picture import place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from examples.shop.demo.measure import Edge, Timeline

__all__ = ["svg"]

_COLOURS = {"direct": "#2b6cb0", "durable": "#c05621", "placed": "#2b6cb0", "paid": "#2f855a", "shipped": "#c05621"}
_LEFT, _WIDTH, _ROW, _HIGH = 330, 600, 22, 150


def svg(edges: Sequence[Edge], timeline: Timeline) -> str:
    """Draw p50 to p99 of each path on a logarithmic scale, and below it the flow over time with the faults."""
    top = 130 + _ROW * len(edges)
    height = top + _HIGH + 50 + 16 * len(timeline.events)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="960" height="{height}" font-family="sans-serif" font-size="12">',
            '<rect width="100%" height="100%" fill="white"/>',
            '<text x="10" y="20" font-size="14">Latency per path: a bar from p50 to p99</text>',
            *_axis(50 + _ROW * len(edges)),
            *_latencies(edges),
            f'<text x="10" y="{top - 20}" font-size="14">Orders a second</text>',
            *_flows(timeline, top),
            *_faults(timeline, top),
            "</svg>\n",
        ]
    )


def _axis(bottom: int) -> Iterator[str]:
    for seconds, label in ((0.001, "1 ms"), (0.01, "10 ms"), (0.1, "0.1 s"), (1.0, "1 s"), (10.0, "10 s")):
        x = _LEFT + place(seconds) * _WIDTH
        yield f'<line x1="{x:.0f}" y1="30" x2="{x:.0f}" y2="{bottom - 14}" stroke="#ddd"/>'
        yield f'<text x="{x:.0f}" y="{bottom}" text-anchor="middle" fill="#555">{label}</text>'


def _latencies(edges: Sequence[Edge]) -> Iterator[str]:
    for row, edge in enumerate(edges):
        y = 42 + row * _ROW
        x1, x2 = (_LEFT + place(quantile(edge.seconds, share)) * _WIDTH for share in (0.5, 0.99))
        label = escape(f"{edge.source} → {edge.target}: {edge.what}")
        yield f'<text x="{_LEFT - 10}" y="{y + 4}" text-anchor="end">{label}</text>'
        yield f'<rect x="{x1:.1f}" y="{y - 6}" width="{max(3.0, x2 - x1):.1f}" height="12" rx="3" fill="{_COLOURS[edge.path]}"/>'


def _flows(timeline: Timeline, top: int) -> Iterator[str]:
    flows = [flow for flow in timeline.flows if flow.what in _COLOURS]
    highest = max((value for flow in flows for value in flow.values), default=0) or 1
    for row, flow in enumerate(flows):
        points = " ".join(
            f"{_LEFT + (slot + 0.5) * _WIDTH / SLOTS:.1f},{top + _HIGH * (1 - value / highest):.1f}"
            for slot, value in enumerate(flow.values)
        )
        yield f'<polyline points="{points}" fill="none" stroke-width="2" stroke="{_COLOURS[flow.what]}"/>'
        label = f"{flow.what}: up to {max(flow.values, default=0):.0f}/s"
        yield f'<text x="10" y="{top + 12 + row * 18}" fill="{_COLOURS[flow.what]}">{label}</text>'


def _faults(timeline: Timeline, top: int) -> Iterator[str]:
    for row, (at, text) in enumerate(timeline.events):
        x, y = _LEFT + (at - timeline.begin) / timeline.seconds * _WIDTH, top + _HIGH + 24 + row * 16
        yield f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{y - 10}" stroke="#999" stroke-dasharray="3 3"/>'
        yield f'<text x="{x:.1f}" y="{y}" text-anchor="middle" fill="#555">{escape(text)}</text>'
