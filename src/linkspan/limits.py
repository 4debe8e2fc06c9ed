"""Limits: how long a handler may take, how many run at the same time, and how a failing message is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from linkspan.errors import Error, SetupError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How messages are handled: of a service, or of one handler. Times are seconds.

    A message that fails is tried `inline` times, with pauses drawn from 0 to `backoff` doubled each time; then it is held for the
    next of the `parked` pauses, and tried `inline` times again after each. After the last one, or `max_age` seconds after it first
    failed, it is a dead letter. `timeout` bounds one run; `concurrency` is how many runs may be waiting for something at the same
    time: of a topic, or of one handler.

    What a handler raises counts as `transient`, worth another try, unless it is an `Error` whose code says otherwise or its class
    is named in `terminal`. Where several of its classes are named, the most derived one decides.

    A service holds at most `held` letters, and `held_per_key` of one key. What comes on top stays in hand, unacknowledged, so
    that its topic waits: nothing is lost.
    """

    inline: int = 3
    backoff: float = 0.1
    parked: tuple[float, ...] = (10.0, 20.0, 30.0)
    max_age: float = 86_400.0
    timeout: float = 30.0
    concurrency: int = 16
    transient: tuple[type[Exception], ...] = ()
    terminal: tuple[type[Exception], ...] = ()
    held: int = 1_000_000
    held_per_key: int = 10_000

    def __post_init__(self) -> None:
        for name, least in (("inline", 1), ("concurrency", 1), ("held", 1), ("held_per_key", 1), ("backoff", 0)):
            if not getattr(self, name) >= least:
                raise SetupError(f"Limits with {name}={getattr(self, name)!r} cannot work: use {least} or more.")
        for name in ("timeout", "max_age"):
            if not getattr(self, name) > 0:
                raise SetupError(f"Limits with {name}={getattr(self, name)!r} cannot work: use more than 0 seconds.")
        if not all(pause >= 0 for pause in self.parked) or sum(self.parked) > self.max_age:
            text = f"Limits with parked={self.parked!r} cannot work: use pauses from 0 on that end within max_age={self.max_age:g} s."
            raise SetupError(text)
        self._check_types()

    def _check_types(self) -> None:
        for name in ("transient", "terminal"):
            given = cast("object", getattr(self, name))
            if not isinstance(given, tuple) or not all(isinstance(each, type) and issubclass(each, Exception) for each in given):  # pyright: ignore[reportUnknownVariableType]  # untyped callers are checked too
                raise SetupError(f"Limits with {name}={given!r} cannot work: name exception classes in a tuple, ({name}=(ValueError,)).")
        for both in set(self.transient) & set(self.terminal):
            raise SetupError(f"Limits name {both.__name__} as transient and as terminal: choose one.")

    def pause(self, tries: int, chance: float) -> float:
        """Return the seconds until the next inline try after `tries`: full jitter, `chance` is drawn from 0 to 1."""
        return chance * min(self.backoff * 2.0**tries, max(self.backoff, LONGEST))

    def helps(self, error: BaseException) -> bool:
        """Tell whether another try may help after what a handler raised."""
        leaves = list(_leaves(error))
        return all(self._helps(leaf) for leaf in leaves)

    def _helps(self, error: BaseException) -> bool:
        for cls in type(error).__mro__:
            if cls in self.terminal:
                return False
            if cls in self.transient:
                return True
            if cls is Error:
                break
        return not isinstance(error, Error) or error.transient


LONGEST = 10.0
"""Most seconds between two inline tries, however many there are."""


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(each)
    else:
        yield error
