"""What an acknowledgement is worth: a level, and by name each setting that lowers it. Engines keep theirs as tables of `Unsafe`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LEVELS", "Durability", "Finding", "Unsafe", "attested", "judged"]

LEVELS = ("none", "process", "power")
"""From nothing, over kills of any process, to power cuts."""

Facts: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unsafe:
    """A setting that makes an acknowledgement worth less. `level` is the most that is left: `power` where it is only worth knowing.

    `found` tells it from an engine's facts; `setting` is the fact whose value people are shown.
    """

    name: str
    level: str
    setting: str
    risk: str
    cure: str
    found: Callable[[Facts], bool]


@dataclass(frozen=True, slots=True)
class Finding:
    """An unsafe setting that an engine has: its name, what is left of the promise, what was found where, and what to do."""

    name: str
    level: str
    text: str
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Durability:
    """What an engine attests about itself: `level` is `power` (survives power cuts), `process` (kills) or `none`."""

    engine: str
    level: str
    reasons: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    findings: tuple[Finding, ...] = ()


def judged(table: Iterable[Unsafe], facts: Facts, where: str) -> list[Finding]:
    """Return those of a table that the facts show; `where` names the server, stream or file."""
    return [
        Finding(each.name, each.level, f"{where} has {each.setting} '{facts.get(each.setting, 'unset')}': {each.risk}", each.cure)
        for each in table
        if each.found(facts)
    ]


def attested(engine: str, findings: Iterable[Finding], facts: Mapping[str, str]) -> Durability:
    """Sum up: the level is the lowest that a finding leaves, the worst findings come first."""
    order = sorted(findings, key=lambda each: LEVELS.index(each.level))
    level = order[0].level if order else LEVELS[-1]
    return Durability(engine, level, tuple(each.text for each in order), facts, tuple(order))
