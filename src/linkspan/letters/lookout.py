"""The lookout: what changed among a service's held letters, found at a cost that does not grow with what is held."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from linkspan.letters.desk import Desk
from linkspan.ports import LetterState

if TYPE_CHECKING:
    from collections.abc import Collection

    from linkspan.ports import Clock, Letter, Store

__all__ = ["Lookout", "may_run"]

ALL = 60.0
"""Seconds between two looks at everything that is held, which costs the more the more that is."""
RARELY = 50
"""A look at everything is followed by so many times its own duration without one, at least."""
LATE = 10.0
"""Seconds for which audit rows are read again where processes share a store: one that commits late stands below those seen before."""


def may_run(letter: Letter, now: float) -> bool:
    """Tell whether a letter that is the first of its key may be handled for its own sake."""
    return letter.state is LetterState.REDRIVE or (letter.state is LetterState.PARKED and letter.due <= now)


class Lookout:
    """Looks for one service. With `all` set, the next look is at everything: something may run that nothing else would call up."""

    def __init__(self, name: str, store: Store, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._store = store
        self._desk = Desk(store)
        self._late = LATE if store.shared else 0.0
        self._known: deque[tuple[float, int]] = deque()
        self._seen: set[int] = set()
        self._again = 0.0
        self.all = True

    async def start(self) -> None:
        """Begin with what is done from now on. Raises `Error`."""
        self._known = deque([(self._clock.monotonic(), await self._desk.newest_deed())])

    def at_all(self) -> bool:
        """Tell whether it is time to look at everything."""
        return self.all or self._clock.monotonic() >= self._again

    def looked(self, began: float) -> None:
        """Note that everything has been looked at since a moment."""
        now = self._clock.monotonic()
        self._again = now + max(ALL, RARELY * (now - began))

    async def discarded(self) -> list[tuple[str, str]]:
        """Return `(topic, key)` of letters that a person ended since the last time. Raises `Error`."""
        now, newest = self._clock.monotonic(), await self._desk.newest_deed()
        after = self._known[0][1]
        found: list[tuple[str, str]] = []
        rows = await self._desk.discards(self._name, after) if newest > after else []
        while rows:
            found += [(place.partition(":")[2], key) for position, place, key in rows if position not in self._seen]
            self._seen.update(position for position, _, _ in rows)
            rows = await self._desk.discards(self._name, rows[-1][0])
        self._known.append((now, newest))
        while len(self._known) > 1 and self._known[1][0] <= now - self._late:
            self._known.popleft()
        self._seen = {position for position in self._seen if position > self._known[0][1]}
        return found

    async def due(self, limit: int, lanes: Collection[int] | None) -> list[tuple[tuple[str, str], int]]:
        """Return `((topic, key), position)` of first letters of these lanes (None: all) that are due or redriven. Raises `Error`."""
        rows = await self._store.due_letters(self._name, self._clock.now(), limit, lanes)
        return [((place.partition(":")[2], key), position) for place, key, position in rows]
