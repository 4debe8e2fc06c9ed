"""What the person at the terminal sees while it runs."""

from __future__ import annotations

import sys
import time

__all__ = ["DemoError", "Progress", "say"]

_WIDTH = 40
_BEGAN = time.monotonic()


class DemoError(Exception):
    """The demo cannot go on; the text says why and what to do."""


def say(text: str) -> None:
    """Print a step, and when it began."""
    print(f"==> {text}  ({time.monotonic() - _BEGAN:.1f} s)", flush=True)


class Progress:
    """A bar that redraws itself; where nobody watches (a file, a CI log) one line for each quarter."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = max(1, total)
        self._live = sys.stdout.isatty()
        self._began = time.monotonic()
        self._quarter = -1
        self._drawn = 0.0

    def show(self, done: int, total: int | None = None) -> None:
        """Draw the bar at `done`; a new total replaces the old one."""
        self._total = max(1, total or self._total)
        share = min(1.0, done / self._total)
        now = time.monotonic()
        if self._live and (now - self._drawn > 0.1 or share == 1.0):
            self._drawn = now
            print(f"\r{self._line(done, share)}\x1b[K", end="", flush=True)
        elif not self._live and int(share * 4) > self._quarter:
            self._quarter = int(share * 4)
            print(self._line(done, share), flush=True)

    def end(self) -> None:
        """Leave the bar as it is and go to the next line."""
        if self._live:
            print()

    def _line(self, done: int, share: float) -> str:
        filled = int(share * _WIDTH)
        return f"    {self._what} [{'█' * filled}{'·' * (_WIDTH - filled)}] {done}/{self._total}  {time.monotonic() - self._began:.1f} s"
