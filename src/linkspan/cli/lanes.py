"""`linkspan lanes`: which instance of a service has which of its lanes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from linkspan.cli.target import opened_stores
from linkspan.ports import OUTBOX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from linkspan.app import App

__all__ = ["owners"]

_OWNED = """
    select lane.service, coalesce(lane.owner, ''), lane.lane, extract(epoch from member.expires - clock_timestamp())::float8
    from linkspan_lane as lane
    left join linkspan_member as member on member.service = lane.service and member.instance = lane.owner
    where lane.service in (?, ?) order by 1, 2, 3
"""
_IDLE = """
    select service, instance, -1, extract(epoch from expires - clock_timestamp())::float8 from linkspan_member as member
    where service in (?, ?) and not exists (
      select 1 from linkspan_lane as lane where lane.owner = member.instance and lane.service = member.service
    )
"""


async def owners(app: App, service: str) -> list[dict[str, Any]]:
    """Return a row per service and instance: its lanes, and for how many seconds it has them without a sign of life."""
    found: dict[tuple[str, str], tuple[list[int], float | None]] = {}
    rows: list[dict[str, Any]] = []
    async with opened_stores(app, service) as stores:
        for name, store in stores.items():
            if not store.shared:
                rows.append(_row(name, "the one process that has its file", range(64), None))
                continue
            for holder, instance, lane, left in [*await store.read(_OWNED, (name, OUTBOX)), *await store.read(_IDLE, (name, OUTBOX))]:
                what = name if holder == name else f"outbox of {name}"
                lanes, _ = found.setdefault((what, instance), ([], left))
                lanes += [lane] if lane >= 0 else []
    return rows + [_row(what, instance or "nobody", lanes, left) for (what, instance), (lanes, left) in found.items()]


def _row(what: str, instance: str, lanes: Iterable[int], left: float | None) -> dict[str, Any]:
    numbers = list(lanes)
    state = "alive" if instance != "nobody" and (left is None or left > 0) else "free" if instance == "nobody" else "silent"
    return {
        "service": what,
        "instance": instance,
        "state": state,
        "count": len(numbers),
        "lanes": _ranges(numbers),
        "lease_seconds": "" if left is None else round(left, 1),
    }


def _ranges(numbers: list[int]) -> str:
    """Write 0, 1, 2, 7 as `0-2 7`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
