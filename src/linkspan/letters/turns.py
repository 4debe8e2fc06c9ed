"""Turns: how many held messages a process handles at the same time, and which of them alone.

When a process dies, each message that was being handled may be what ended it. Those are handled alone afterwards, one at a time
over all services of the process: what ends it again is then known, and none of its neighbours is blamed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Turns"]

TOGETHER = 16
"""Held messages handled at the same time: so many may be under suspicion after a crash, and are handled one by one then."""


class Turns:
    """Lets held messages in, first come, first served: many together, or one alone."""

    def __init__(self, most: int = TOGETHER) -> None:
        self._most = most
        self._inside = 0
        self._alone = False
        self._waiting: deque[tuple[bool, Callable[[], None]]] = deque()

    def enter(self, run: Callable[[], None], *, alone: bool) -> None:
        """Call `run` when its turn comes, maybe now; what it begins ends with `leave`."""
        self._waiting.append((alone, run))
        self._admit()

    def leave(self) -> None:
        """End a turn."""
        self._inside -= 1
        self._alone = self._alone and self._inside > 0
        self._admit()

    def _admit(self) -> None:
        while self._waiting and not self._alone:
            alone, run = self._waiting[0]
            if self._inside >= (1 if alone else self._most):
                return
            self._waiting.popleft()
            self._inside += 1
            self._alone = alone
            run()
