"""The consumer's breaker: while what the handlers depend on is away, messages wait instead of being tried in vain.

A breaker that fails fast would burn the messages of an outage into dead letters. This one stops taking them, and tries one at a
time until one succeeds.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from linkspan.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from linkspan.errors import Error
    from linkspan.incoming.consumer import Consumer
    from linkspan.incoming.work import Work
    from linkspan.letters.deadletter import Holding
    from linkspan.ports import Runtime, Timer

__all__ = ["BREAKER", "Breaker", "Circuit", "waiting"]

_log = logging.getLogger("linkspan.breaker")

HELD = 1.0
"""Seconds that a try is left to a held message."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a service stops handling the messages of a topic. Times are seconds.

    It opens when `failures` different messages have failed for the first time within `window`, each in a way that another try may
    help, and they are at least `share` of all that ended meanwhile. While it is open one message at a time is tried, after `pause`,
    doubled up to `longest`; what fails then is not counted against the message. One that succeeds closes it.
    """

    failures: int = 10
    share: float = 0.5
    window: float = 60.0
    pause: float = 1.0
    longest: float = 30.0

    def __post_init__(self) -> None:
        if not self.failures >= 1 or not 0 < self.share <= 1:
            text = f"A breaker with failures={self.failures!r}, share={self.share!r} cannot work: use 1 or more, and a share up to 1."
            raise SetupError(text)
        if not 0 < self.pause <= self.longest or not self.window > 0:
            text = f"A breaker with pause={self.pause!r}, longest={self.longest!r}, window={self.window!r} cannot work"
            raise SetupError(f"{text}: use times above 0, the pause not above the longest.")


def waiting(consumers: Iterable[Consumer]) -> dict[str, str]:
    """Return which consumers wait for what their handlers depend on, and since when."""
    found = {f"consumer {each.service} {each.topic}": each.circuit.state for each in consumers}
    return {name: state for name, state in found.items() if state}


BREAKER = Breaker()
"""The breaker of a service that says nothing about it."""


class Circuit:
    """The breaker of one service and topic at work.

    `open` is read for every message and `fine` counts the handlers that ended well, committed or not, so both are plain attributes.
    """

    def __init__(self, policy: Breaker | None, consumer: Consumer, holding: Holding, runtime: Runtime) -> None:
        self.open = False
        self.fine = 0
        self.in_vain = 0
        self._policy = policy or Breaker()
        self._off = policy is None
        self._consumer = consumer
        self._holding = holding
        self._clock = runtime.clock
        self._random = runtime.random
        self._recent: deque[tuple[float, int]] = deque(maxlen=self._policy.failures)
        self._pause = 0.0
        self._since = 0.0
        self._code = ""
        self._may_probe = False
        self._probe: Work | None = None
        self._looking = False
        self._left_to_held = False
        self._timer: Timer | None = None

    @property
    def state(self) -> str:
        """Return '' while closed, else since when and why it is open."""
        if not self.open:
            return ""
        waited = self._clock.monotonic() - self._since
        return f"stopped for {waited:.0f} s: too many messages failed ({self._code}); one at a time is tried until one succeeds"

    def failed(self, work: Work, error: Error) -> bool:
        """Take note of a failure that another try may help; True where it does not count against the message."""
        if not self.open and not self._trips(work):
            return False
        if not self.open:
            self._trip(error)
        elif work is self._probe:
            self._probe = None
            self._pause = min(self._pause * 2, self._policy.longest)
            self.in_vain += 1
            self._consumer.rebound()
            self._later()
        work.told = True
        return self._clock.now() - work.first_failed <= self._consumer.limits(work.envelope.type).max_age

    def _trips(self, work: Work) -> bool:
        """Tell whether this failure is one too many. Only a message's first one says something new, and a letter's nothing."""
        if self._off or work.letter is not None or work.told:
            return False
        work.told = True
        now, fine = self._clock.monotonic(), self.fine
        self._recent.append((now, fine))
        first, before = self._recent[0]
        failed, policy = len(self._recent), self._policy
        enough = failed == policy.failures and now - first <= policy.window
        return enough and failed >= policy.share * (failed + fine - before)

    def _trip(self, error: Error) -> None:
        self.open = True
        self.in_vain = 0
        self._code = error.code.value
        self._since = self._clock.monotonic()
        self._pause = self._policy.pause
        self._recent.clear()
        _log.warning("Too many messages failed; their topic waits, one at a time is tried.", extra={**self._fields(), "code": self._code})
        self._later()
        self._consumer.stopped_by_breaker()

    def _later(self) -> None:
        self._after(self._pause * (0.5 + self._random.random() / 2))

    def _after(self, seconds: float) -> None:
        """Set the one timer there is: more would try more than one at a time."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(seconds, self._next)

    def _next(self) -> None:
        """Let one be tried after a pause; where all in hand have failed before, every other time a held one.

        What is in hand may fail for reasons of its own, all of it, and then nothing there ever closes the breaker.
        """
        if not self.open or self._probe is not None:
            return
        self._left_to_held = not self._left_to_held and self._holding.holds_any
        self._due()
        if self._left_to_held:
            self._after(min(self._pause, HELD))  # none of them may be due
            self._holding.look()

    def _due(self) -> None:
        """Let the next message be tried; where none waits, the next look at the held ones may take up one."""
        if not self.open or self._probe is not None:
            return
        self._may_probe, self._looking = True, False
        self._consumer.workers.wake()

    def permits(self, ready: deque[Work]) -> bool:
        """Tell whether a message may be tried while the breaker is open; any of those that are ready, put first.

        One that has not failed yet, where there is one, and which is left to chance: after many messages that fail for reasons of their
        own, the next may well be one more of them.
        """
        if not self._may_probe:
            return False
        fresh = [place for place, work in enumerate(ready) if not work.told]
        if not fresh and self._left_to_held:
            return False
        places = fresh or range(len(ready))
        ready.rotate(-places[int(self._random.random() * len(places))])
        self._may_probe = self._looking = False
        self._probe = ready[0]
        return True

    def takes_letter(self) -> bool:
        """Tell whether a held message may be taken up: one to try, where no other message waits, or where this try is left to it."""
        if not self.open:
            return True
        if not self._may_probe or self._looking or (self._consumer.in_hand and not self._left_to_held):
            return False
        self._looking = True
        self._after(self._pause)  # it may not come: the store is what is away
        return True

    def succeeded(self) -> None:
        """Close: what the handlers depend on is back."""
        self.open = self._may_probe = self._looking = False
        self._probe = None
        fields = {**self._fields(), "seconds": round(self._clock.monotonic() - self._since, 3)}
        _log.warning("A message succeeded; all of its topic are handled again.", extra=fields)
        self._consumer.rebound()
        self._consumer.workers.wake()

    def released(self, work: Work) -> None:
        """Let the next one be tried at once after a message that has ended in another way: refused, repeated, expired."""
        if work is self._probe:
            self._probe, self._left_to_held = None, False
            self._due()

    def _fields(self) -> dict[str, object]:
        return {"service": self._consumer.service, "topic": self._consumer.topic}
