"""Room: how many letters a service holds, so that it stops taking more at its bounds. Back-pressure instead of loss."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from linkspan.letters.desk import Desk

if TYPE_CHECKING:
    from linkspan.limits import Limits
    from linkspan.ports import Store

__all__ = ["Room"]

_log = logging.getLogger("linkspan.deadletter")


class Room:
    """Counts one service's letters by topic and key.

    The counts follow what this process does. Where a bound is reached they are read again, since a person, or another instance,
    may have made room.
    """

    def __init__(self, name: str, store: Store, limits: Limits) -> None:
        self._name = name
        self._desk = Desk(store)
        self._limits = limits
        self._counts: Counter[tuple[str, str]] = Counter()
        self._total = 0
        self._tight = False

    async def start(self) -> None:
        """Count what is there. Raises `Error`."""
        self._counts = Counter(await self._desk.counts(self._name))
        self._total = self._counts.total()
        self._tight = False

    async def look(self) -> None:
        """Count again where a bound was reached. Raises `Error`."""
        if self._tight:
            await self.start()

    def added(self, topic: str, key: str) -> None:
        """Count one more."""
        self._counts[topic, key] += 1
        self._total += 1

    def left(self, topic: str, key: str) -> None:
        """Count one less."""
        self._total = max(self._total - 1, 0)
        self._counts[topic, key] -= 1
        if self._counts[topic, key] <= 0:
            del self._counts[topic, key]

    def has(self, topic: str, key: str) -> bool:
        """Tell whether one more letter of this key may be held."""
        count = self._counts.get((topic, key), 0)
        if self._total < self._limits.held and count < self._limits.held_per_key:
            return True
        if not self._tight:
            fields = {"service": self._name, "topic": topic, "letters": self._total, "of_key": count}
            _log.error("No more letters are held: their topic waits. Redrive or discard what is dead.", extra=fields)
        self._tight = True
        return False
