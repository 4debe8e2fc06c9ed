"""Outbox rows: how many a look takes of each lane; those that the broker has are not shown any more, and deleted with a later group."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from linkspan.ports import Outgoing, Runtime, Timer
    from linkspan.stores.postgres_place import PostgresLimits

__all__ = ["Deletions", "share"]


def share(limit: int, lanes: int) -> int:
    """Return how many rows a look for `limit` takes of each lane: those of the fullest, where keys are spread by chance, fill the page."""
    mean = limit / max(lanes, 1)
    return min(limit, math.ceil(mean + 3 * math.sqrt(mean)) + 4)


class Deletions:
    """Gathers rows and hands them to the writer: 256 together, or after 50 ms, whatever comes first."""

    def __init__(self, runtime: Runtime, limits: PostgresLimits, hand_over: Callable[[], None]) -> None:
        self._runtime = runtime
        self._limits = limits
        self._hand_over = hand_over
        self.positions: set[int] = set()
        self._waiting: list[Outgoing] = []
        self._late: list[Outgoing] = []
        self._looking = 0
        self._timer: Timer | None = None

    def add(self, messages: Sequence[Outgoing]) -> None:
        """Take rows that the broker has stored."""
        fresh = [message for message in messages if message.position and message.position not in self.positions]
        self.positions.update(message.position for message in fresh)
        self._wait_for(fresh)

    def _wait_for(self, messages: Sequence[Outgoing]) -> None:
        self._waiting += messages
        if len(self._waiting) >= self._limits.sent_rows:
            self._hand_over()
        elif self._waiting and self._timer is None:
            self._timer = self._runtime.clock.call_later(self._limits.sent_delay, self._waited)

    def _waited(self) -> None:
        self._timer = None
        self._hand_over()

    def taken(self) -> list[Outgoing]:
        """Give what waits to the writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        return waiting

    def settled(self, deleted: Sequence[Outgoing], kept: Sequence[Outgoing]) -> None:
        """Hear which rows are gone, and which must be tried again."""
        if deleted:
            self._late.extend(deleted)
            self._forget()
        if kept:
            self._wait_for(kept)

    @contextmanager
    def looking(self) -> Generator[None]:
        """Keep in mind what is deleted meanwhile: a snapshot taken before still shows it."""
        self._looking += 1
        try:
            yield
        finally:
            self._looking -= 1
            self._forget()

    def _forget(self) -> None:
        if not self._looking:
            self.positions.difference_update(message.position for message in self._late)
            self._late.clear()
