"""Die at a chosen point, or note which points there are: the two hooks of crash tests.

Every commit, publish and ack of linkspan passes `Runtime.reached` with a name. A test runs its workload once with a
`Recorder`, then again and again with a `CrashPoint`, restarts what died, lets it drain, and checks the history
(`linkspan.testing.history`):

    app = App(orders, runtime=system(hook_from(os.environ)))        # LINKSPAN_CRASH=relay.publish.after:3:kill

Standard library only, so that a child process that is about to die loads nothing for it.
"""

from __future__ import annotations

import ast
import os
import re
import signal
from collections import Counter
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CRASHED", "VARIABLE", "CrashPoint", "Place", "Recorder", "crash_at", "hook_from", "points"]

CRASHED = (137, -int(signal.SIGKILL))
"""The exit codes of a process that died as asked, by `os._exit` and by SIGKILL."""

VARIABLE = "LINKSPAN_CRASH"
"""The environment variable that `hook_from` reads."""

_SPEC = re.compile(r"(?P<name>[a-z_]+\.[a-z_]+\.(?:before|after))(?::(?P<occurrence>[1-9][0-9]*))?(?::(?P<by>exit|kill))?")


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A point, and at which of its passes to die, counted from 1. `by` is `exit` (no clean-up, buffers lost) or `kill` (SIGKILL)."""

    name: str
    occurrence: int = 1
    by: str = "exit"

    @classmethod
    def parse(cls, text: str) -> CrashPoint:
        """Read `name[:occurrence][:exit|kill]`. Raises `ValueError`."""
        found = _SPEC.fullmatch(text)
        if found is None:
            raise ValueError(f"The crash point '{text}' is not understood: write name:occurrence, such as relay.publish.after:3.")
        return cls(found["name"], int(found["occurrence"] or 1), found["by"] or "exit")

    def __str__(self) -> str:
        return f"{self.name}:{self.occurrence}:{self.by}"


def crash_at(point: CrashPoint) -> Callable[[str], None]:
    """Return a hook that ends the process there; it may be called from any thread."""
    name, last, turns = point.name, point.occurrence, count(1)  # `next` on a count is atomic
    die = _exit if point.by == "exit" else _kill

    def reached(passed: str) -> None:
        if passed == name and next(turns) == last:
            die()

    return reached


def hook_from(environment: Mapping[str, str]) -> Callable[[str], None]:
    """Return the hook that the environment asks for; one that does nothing where it asks for none."""
    spec = environment.get(VARIABLE, "")
    return crash_at(CrashPoint.parse(spec)) if spec else _pass


class Recorder:
    """Counts the points that are passed: `reached=recorder`."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, point: str) -> None:
        """Count one."""
        self.counts[point] += 1


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where the source passes a point; `module` is relative to the package."""

    name: str
    module: str
    line: int


def points(package: Path | None = None) -> list[Place]:
    """Return every point that the source of linkspan passes, found by reading it: a new one cannot be forgotten."""
    root = package or Path(__file__).resolve().parents[1]
    found: list[Place] = []
    for file in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _is_hook(node.func):
                found += [Place(name, file.relative_to(root).as_posix(), node.lineno) for name in _names(node.args)]
    return sorted(found)


def _is_hook(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    return name.removeprefix("_") == "reached"


def _names(arguments: list[ast.expr]) -> list[str]:
    """Return the literal name. Anything else could not be enumerated, and is an error of the caller's house rules."""
    first = arguments[0] if arguments else None
    return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []


def _pass(_point: str) -> None:
    """Do nothing."""


def _exit() -> NoReturn:
    os._exit(137)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
