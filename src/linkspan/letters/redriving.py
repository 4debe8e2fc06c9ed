"""Redriving: the running service tries dead letters again, a canary first, never faster than asked, and stops by itself when they fail.

A redrive must not become the outage that it is to end: it runs few letters at a time beside live messages, what waits behind a
redriven letter goes at the same pace, and when less than 95 % succeed it ends within seconds, with its reason in the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Protocol

from linkspan.errors import Error
from linkspan.letters.redrive import Redrives, taken
from linkspan.ports import LetterState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from linkspan.letters.redrive import Redrive
    from linkspan.ports import Clock, Letter, Runtime, Store, Value

__all__ = ["Redriver", "Tally"]

_log = logging.getLogger("linkspan.redrive")

LOOK = 1.0
"""Seconds between two looks whether somebody asked for a redrive, or stopped it."""
AT_ONCE = 8
"""Redriven letters that run at the same time: half of a topic's workers."""
BURST = 4
"""Letters that are begun together, so that they share their commits with each other instead of crowding those of live messages."""
PAGE = 100
"""Letters read ahead."""
ENOUGH = 0.95
"""The share of runs that must succeed."""
FEWEST = 2
"""Failures below which nothing is stopped: one bad letter is no outage."""
AUTOMATIC = "linkspan"
"""Who stopped it, in the audit, where nobody did."""


class Letters(Protocol):
    """Whoever holds a service's letters and can run them."""

    @property
    def holds_any(self) -> bool:
        """Tell whether there are any."""
        ...

    @property
    def share(self) -> float:
        """Return which part of the service's keys is this instance's: so much of the rate is, too."""
        ...

    def redrive(self, letter: Letter, statements: Sequence[tuple[str, Sequence[Value]]]) -> bool:
        """Run a dead letter; the statements commit with its count. False where it cannot run here."""
        ...

    def stopped(self, redrive: Redrive, reason: str) -> None:
        """Tell those who alert that a redrive stopped by itself."""
        ...


class Tally:
    """Counts how letters ended, and says when too many fail."""

    def __init__(self, clock: Clock, rate: float, patience: float) -> None:
        self._clock = clock
        self._patience = patience
        self._ended: deque[bool] = deque(maxlen=min(max(int(2 * rate), 20), 100))
        self.begun: dict[int, float] = {}

    def begin(self, position: int) -> None:
        """Count a letter that runs now."""
        self.begun[position] = self._clock.monotonic()

    def end(self, position: int, *, handled: bool) -> None:
        """Count how a letter ended."""
        if self.begun.pop(position, None) is not None:
            self._ended.append(handled)

    def verdict(self) -> str:
        """Say why it must stop, empty where it may go on."""
        late = sum(begun < self._clock.monotonic() - self._patience for begun in self.begun.values())
        failed = self._ended.count(False) + late
        count = len(self._ended) + late
        if failed < FEWEST or count - failed >= ENOUGH * count:
            return ""
        slow = f", {late} of them still running after {self._patience:g} s" if late else ""
        return f"{failed} of the last {count} failed{slow}: mend the cause, then redrive again."


class _Bucket:
    """Lets through so many a second, evenly."""

    def __init__(self, clock: Clock, rate: float) -> None:
        self._clock = clock
        self._rate = rate
        self.share = 1.0
        self._next = clock.monotonic()

    def wait(self, turns: int = 1) -> float:
        """Take turns that come together, and return the seconds until then."""
        now = self._clock.monotonic()
        turn = max(self._next, now)
        self._next = turn + turns / (self._rate * max(self.share, 0.01))
        return turn - now


class Redriver:
    """Carries out the redrives of one service."""

    def __init__(self, name: str, runtime: Runtime, store: Store, holding: Letters) -> None:
        self._name = name
        self._clock = runtime.clock
        self._store = store
        self._redrives = Redrives(store)
        self._holding = holding
        self._tally = Tally(self._clock, 1.0, 60.0)
        self._bucket = _Bucket(self._clock, 1000.0)
        self._changed = asyncio.Event()
        self._begun = 0
        self._seen: set[int] = set()
        self._skipped = 0
        self.active: Redrive | None = None

    async def run(self) -> None:
        """Look for redrives and carry them out, until cancelled."""
        first = True
        while True:
            try:
                found = await self._redrives.active(self._name) if first or self._holding.holds_any else None
                if found is not None:
                    await self._carry_out(found)
                first = False
            except Error as error:
                _log.warning("A redrive waits for the store.", extra={"service": self._name, "code": error.code.value})
            self.active = None
            await self._clock.sleep(LOOK)

    async def turn(self) -> None:
        """Wait until one more letter may run."""
        while len(self._tally.begun) >= AT_ONCE:
            await self._pause(0.2)
        delay = self._bucket.wait()
        if delay > 0:
            await self._clock.sleep(delay)

    def begin(self, position: int) -> None:
        """Count a letter that runs at this pace."""
        self._tally.begin(position)

    def end(self, position: int, *, handled: bool) -> None:
        """Count how a letter ended; others are not counted."""
        self._tally.end(position, handled=handled)
        self._changed.set()

    async def _pause(self, seconds: float) -> None:
        """Wait until a letter ended, at most so long."""
        timer = self._clock.call_later(seconds, self._changed.set)
        await self._changed.wait()
        timer.cancel()
        self._changed.clear()

    async def _carry_out(self, redrive: Redrive) -> None:
        self.active = redrive
        self._tally = Tally(self._clock, redrive.rate, redrive.patience)
        self._bucket = _Bucket(self._clock, redrive.rate)
        self._bucket.share = self._holding.share
        self._begun, self._skipped, self._seen = 0, 0, set()
        fields = {"service": self._name, "redrive": redrive.id, "letters": redrive.total}
        _log.info("A redrive begins.", extra=fields)
        await self._redrives.note(redrive, "canary" if redrive.canary else "running", self._clock.now())
        ahead: deque[int] = deque()
        look = self._clock.monotonic() + LOOK
        while True:
            if self._clock.monotonic() >= look:
                look = self._clock.monotonic() + LOOK
                if not await self._goes_on(redrive):
                    return
            reason = self._tally.verdict()
            if reason:
                await self._stop(redrive, reason)
                return
            if not await self._step(redrive, ahead):
                return

    async def _goes_on(self, redrive: Redrive) -> bool:
        """Say in the store how it stands; tell whether nobody stopped it."""
        self._bucket.share = self._holding.share
        now = await self._redrives.one(redrive.id)
        if now is None or not now.active:
            _log.info("A redrive was stopped by a person.", extra={"service": self._name, "redrive": redrive.id})
            return False
        await self._redrives.note(redrive, "canary" if self._begun < redrive.canary else "running", self._clock.now())
        return True

    async def _step(self, redrive: Redrive, ahead: deque[int]) -> bool:
        """Take one letter, or wait; False at the end."""
        some = min(max(int(redrive.rate / BURST), 1), BURST)
        if self._begun < redrive.canary:
            some = min(some, redrive.canary - self._begun)
        waits_for_canary = self._begun == redrive.canary and self._tally.begun
        if waits_for_canary or len(self._tally.begun) > AT_ONCE - some:
            await self._pause(0.2)
            return True
        if not ahead:
            found = await self._redrives.left(redrive, 0, PAGE + self._skipped + AT_ONCE)
            ahead.extend(position for position in found if position not in self._seen)
        if not ahead:
            return await self._last(redrive)
        await self._take(redrive, [ahead.popleft() for _ in range(min(some, len(ahead)))])
        return True

    async def _last(self, redrive: Redrive) -> bool:
        """Wait for what still runs, then end it as done."""
        if self._tally.begun:
            await self._pause(0.2)
            return True
        if self._skipped and self._store.shared:  # other instances have them, or will have given them to us
            self._skipped, self._seen = 0, set()
            await self._pause(LOOK)
            return True
        why = f"{self._skipped} belong to topics that are not read here" if self._skipped else ""
        if await self._redrives.end(redrive, "done", who=AUTOMATIC, why=why, at=self._clock.now()):
            _log.info("A redrive is done.", extra={"service": self._name, "redrive": redrive.id})
        return False

    async def _take(self, redrive: Redrive, positions: Sequence[int]) -> None:
        found = [await self._store.letter(position) for position in positions]
        letters = [letter for letter in found if letter is not None and letter.state is LetterState.DEAD]
        delay = self._bucket.wait(len(letters))
        if delay > 0:
            await self._clock.sleep(delay)
        for letter in letters:
            self._seen.add(letter.position)
            if self._holding.redrive(letter, taken(redrive, letter.position, self._clock.now())):
                self._begun += 1
            else:
                self._skipped += 1

    async def _stop(self, redrive: Redrive, reason: str) -> None:
        fields = {"service": self._name, "redrive": redrive.id, "reason": reason}
        if await self._redrives.end(redrive, "stopped", who=AUTOMATIC, why=reason, at=self._clock.now()):
            _log.error("A redrive stopped by itself: too many letters failed again.", extra=fields)
            self._holding.stopped(redrive, reason)
