"""The lookout: what changed among a service's held letters, found at a cost that does not grow with what is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linkspan.desk import Desk
from linkspan.ports import LetterState

if TYPE_CHECKING:
    from linkspan.ports import Clock, Letter, Store

__all__ = ["Lookout", "may_run"]

ALL = 60.0
"""Seconds between two looks at everything that is held, which costs the more the more that is."""
RARELY = 50
"""A look at everything is followed by so many times its own duration without one, at least."""


def may_run(letter: Letter, now: float) -> bool:
    """Tell whether a letter that is the first of its key may be handled for its own sake."""
    return letter.state is LetterState.REDRIVE or (letter.state is LetterState.PARKED and letter.due <= now)


class Lookout:
    """Looks for one service. With `all` set, the next look is at everything: something may run that nothing else would call up."""

    def __init__(self, name: str, store: Store, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._desk = Desk(store)
        self._shared = store.shared
        self._deed = 0
        self._again = 0.0
        self.all = True

    async def start(self) -> None:
        """Begin with what is done from now on. Raises `Error`."""
        self._deed = await self._desk.newest_deed()

    def at_all(self) -> bool:
        """Tell whether it is time to look at everything; where several instances share a store it always is."""
        return self._shared or self.all or self._clock.monotonic() >= self._again

    def looked(self, began: float) -> None:
        """Note that everything has been looked at since a moment."""
        now = self._clock.monotonic()
        self._again = now + max(ALL, RARELY * (now - began))

    async def discarded(self) -> list[tuple[str, str]]:
        """Return `(topic, key)` of letters that a person ended since the last time. Raises `Error`."""
        found: list[tuple[str, str]] = []
        for position, action, place, key in await self._desk.deeds(self._deed):
            self._deed = position
            service, _, topic = place.partition(":")
            if action == "discard" and service == self._name:
                found.append((topic, key))
        return found

    async def due(self, limit: int) -> list[tuple[tuple[str, str], int]]:
        """Return `((topic, key), position)` of first letters that are due or redriven. Raises `Error`."""
        rows = await self._desk.due(self._name, self._clock.now(), limit)
        return [((place.partition(":")[2], key), position) for place, key, position in rows]
