"""What the services write down the same way."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from examples.shop.orders_csv import CHARGES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from examples.shop.contracts.orders_v1 import Line

__all__ = ["cents_of", "goods", "now", "pieces_of", "tables_of"]


def tables_of(service: str) -> Path:
    """Return the folder with a service's numbered SQL scripts, which are applied at its start."""
    return Path(__file__).parent.parent / "schema" / service


def now() -> int:
    """Return microseconds since 1970, for the demo's picture of who waited for whom."""
    return time.time_ns() // 1_000


def goods(lines: Iterable[Line]) -> list[Line]:
    """Leave out postage and other charges, which are money without goods."""
    return [line for line in lines if line.sku not in CHARGES]


def pieces_of(lines: Iterable[Line]) -> int:
    """Count the goods."""
    return sum(line.pieces for line in goods(lines))


def cents_of(lines: Iterable[Line]) -> int:
    """Add up the money, charges included."""
    return sum(line.pieces * line.cents for line in lines)
