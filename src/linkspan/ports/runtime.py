"""Time, chance and names, injected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["Clock", "Ids", "Runtime", "Timer"]


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Forget the call; harmless when it has run."""
        ...


class Clock(Protocol):
    """Time, so that tests can own it."""

    def now(self) -> float:
        """Return seconds since 1970-01-01 UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back; deadlines inside a process are moments on it."""
        ...

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` on the running loop in `delay` seconds."""
        ...

    async def sleep(self, delay: float) -> None:
        """Wait `delay` seconds."""
        ...


class Ids(Protocol):
    """Names for messages, requests and spans."""

    def new(self) -> str:
        """Return a new id: UUIDv7 text (RFC 9562), so ids sort by time."""
        ...

    def span(self) -> str:
        """Return 16 hex digits for a new trace span, never all zero (W3C Trace Context)."""
        ...

    def trace(self) -> str:
        """Return 32 hex digits for a new trace, never all zero."""
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything nondeterministic, injected: the same run twice in tests, whole systems in simulated time.

    `reached` is called with a name such as `relay.publish.before` around every commit, publish and ack;
    it does nothing in production, and ends the process at a chosen point in crash tests.
    """

    clock: Clock
    random: random.Random
    ids: Ids
    reached: Callable[[str], None]
