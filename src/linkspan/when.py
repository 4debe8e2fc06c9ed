"""When a message leaves, and until when it counts: what `after=`, `at=` and `expires=` of `send` and `publish` come to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from linkspan.errors import Code, Error

__all__ = ["NOW", "SKEW", "Until", "Wait", "When", "is_over", "when_of"]

Wait: TypeAlias = float | timedelta
"""Seconds, or a span."""
Until: TypeAlias = float | timedelta | datetime
"""Seconds, a span, or a moment with its time zone."""

SKEW: Final = 1.0
"""Seconds by which clocks may differ: a message is over that much after its expiry, as one dropped too early is lost (ADR 20)."""
FARTHEST: Final = 100 * 366 * 86_400.0
"""Seconds that anything may lie ahead."""


@dataclass(frozen=True, slots=True)
class When:
    """Moments in seconds since 1970: `due` to leave, 0 for with the commit; `expires` to be over, 0 for what the contract says."""

    due: float = 0.0
    expires: float = 0.0

    def until(self, now: float, declared: float | None) -> float:
        """Return when the message is over, 0 for never: by its sender or its contract, whichever is earlier. A wait counts from `due`."""
        by_contract = (self.due or now) + declared if declared else 0.0
        return min(self.expires, by_contract) if self.expires and by_contract else self.expires or by_contract


NOW: Final = When()


def when_of(now: float, after: Wait | None, at: datetime | None, expires: Until | None) -> When:
    """Read the three options. Raises `Error(INVALID_ARGUMENT)`; a moment in the past leaves now."""
    if after is not None and at is not None:
        raise _wrong("A message is given both 'after' and 'at': give one of them.")
    due = now + _ahead("after", after) if after is not None else _moment("at", at) if at is not None else now
    if due > now + FARTHEST:
        raise _wrong("The message would leave in more than 100 years: 'after' is in seconds.")
    over = 0.0
    if expires is not None:
        over = _moment("expires", expires) if isinstance(expires, datetime) else max(due, now) + _ahead("expires", expires)
        if over <= max(due, now):
            raise _wrong("The message would expire before it leaves: give a later 'expires'.")
    return When(due if due > now else 0.0, over)


def is_over(expires: float, now: float) -> bool:
    """Tell whether a message that expires at a moment is not to be handled any more."""
    return now >= expires + SKEW


def _ahead(name: str, wait: object) -> float:
    seconds = wait.total_seconds() if isinstance(wait, timedelta) else wait
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise _wrong(f"'{name}' is a {type(wait).__name__}: give seconds or a timedelta.")
    if not 0 <= seconds <= FARTHEST:
        raise _wrong(f"'{name}' is {seconds:g} seconds: give 0 or more, and less than 100 years.")
    return float(seconds)


def _moment(name: str, moment: object) -> float:
    if not isinstance(moment, datetime):
        raise _wrong(f"'{name}' is a {type(moment).__name__}: give a datetime with a time zone.")
    if moment.tzinfo is None:
        raise _wrong(f"'{name}' has no time zone: write datetime(..., tzinfo=UTC), or the zone that is meant.")
    return moment.timestamp()


def _wrong(text: str) -> Error:
    return Error(Code.INVALID_ARGUMENT, text)
