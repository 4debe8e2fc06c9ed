"""One case of the corpus: a contract, a change that breaks one rule, and a neighbouring change that breaks none."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Files = dict[str, str]
"""Proto text by path."""


@dataclass(frozen=True)
class Case:
    """`breaks` breaks `rule`, and with it those in `also`; `allows` breaks none. `unseen` is what buf does not find (ADR 11).

    A version is a proto3 body, or a whole file beginning with its syntax or edition, or many files by path. `PKG` stands
    for the case's own package.
    """

    rule: str
    name: str
    before: str | Files
    breaks: str | Files
    allows: str | Files
    also: frozenset[str] = field(default_factory=frozenset)
    unseen: frozenset[str] = field(default_factory=frozenset)

    @property
    def id(self) -> str:
        return f"{self.rule}: {self.name}"


@dataclass(frozen=True)
class Pair:
    """Two versions to compare, with the rules that the second one breaks."""

    id: str
    before: str | Files
    after: str | Files
    breaks: frozenset[str]
    unseen: frozenset[str]


def case(
    rule: str,
    name: str,
    *,
    before: str | Files,
    breaks: str | Files,
    allows: str | Files,
    also: tuple[str, ...] = (),
    unseen: tuple[str, ...] = (),
) -> Case:
    return Case(rule, name, before, breaks, allows, frozenset(also), frozenset(unseen))


def pairs(cases: tuple[Case, ...]) -> list[Pair]:
    found: list[Pair] = []
    for each in cases:
        found.append(Pair(f"{each.id} - breaks", each.before, each.breaks, frozenset({each.rule}) | each.also, each.unseen))
        found.append(Pair(f"{each.id} - allowed", each.before, each.allows, frozenset(), frozenset()))
    return found


def texts(version: str | Files, package: str) -> Files:
    """Return the files of a version in a package of their own, below a folder of that name."""
    given = {"it.proto": version} if isinstance(version, str) else version
    return {f"{package}/{path}": _whole(text).replace("PKG", package) for path, text in given.items()}


def _whole(text: str) -> str:
    return text if re.match(r"\s*(syntax|edition)\b", text) else f'syntax = "proto3";\npackage PKG;\n{text}\n'
