"""Compare the present contracts with an older version, rule by rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from linkspan.contracts.compat_fields import FIELD_RULES
from linkspan.contracts.compat_ours import OUR_RULES
from linkspan.contracts.compat_services import SERVICE_RULES
from linkspan.contracts.compat_types import TYPE_RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from linkspan.contracts.compat_rule import Change, Rule
    from linkspan.contracts.snapshot import Snapshot

__all__ = ["RULES", "Finding", "compare", "compare_all"]

RULES: Final = (*FIELD_RULES, *TYPE_RULES, *SERVICE_RULES, *OUR_RULES)
"""All rules; ids are never given another meaning."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that the present contracts break, and the locked versions against which they do."""

    rule: Rule
    change: Change
    versions: tuple[int, ...] = ()

    @property
    def sentence(self) -> str:
        """Return what changed, without rule, place and advice."""
        return f"{self.change.where} was {self.change.was}, is {self.change.now}"


def compare(before: Snapshot, after: Snapshot, *, rules: Iterable[Rule] = RULES) -> list[Finding]:
    """Return what the newer version breaks, in order of names."""
    found = [Finding(rule, change) for rule in rules for change in rule.check(before, after)]
    return sorted(found, key=lambda finding: (finding.change.where, finding.rule.id, finding.change.was))


def compare_all(versions: Sequence[tuple[int, Snapshot]], after: Snapshot, *, rules: Iterable[Rule] = RULES) -> list[Finding]:
    """Compare with each of the numbered versions; the same finding against several is one that names them all."""
    found: dict[tuple[str, Change], Finding] = {}
    chosen = tuple(rules)
    for number, before in versions:
        for finding in compare(before, after, rules=chosen):
            known = found.get((finding.rule.id, finding.change), finding)
            found[finding.rule.id, finding.change] = replace(known, versions=(*known.versions, number))
    return sorted(found.values(), key=lambda finding: (finding.change.where, finding.rule.id, finding.change.was))
