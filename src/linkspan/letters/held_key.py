"""A held key: what is known in memory of an order key whose messages wait in the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["HeldKey"]


@dataclass(slots=True)
class HeldKey:
    """A held key.

    `version` counts what happens to it and `runs` its letters' ends, so that a look at the table knows whether it is still true.
    `pending` letters are on their way into the table. While one is `running` no other is; one that failed leaves it `stuck` until due.
    `gap` is the lowest number known among its letters that one below it is missing for, 0 for none.
    Where a redrive of many set it going it is `paced`: its letters wait for their turn, and while they do it is `advancing`.
    """

    version: int = 0
    runs: int = 0
    pending: int = 0
    running: bool = False
    stuck: bool = False
    gap: int = 0
    lane: int = 0
    paced: bool = False
    advancing: bool = False

    async def turn(self, pace: Callable[[], Awaitable[None]]) -> None:
        """Wait for the pace of the redrive that set the key going, so that what waited behind its letter is no flood either."""
        if not self.paced:
            return
        self.advancing = True
        try:
            await pace()
        finally:
            self.advancing = False
