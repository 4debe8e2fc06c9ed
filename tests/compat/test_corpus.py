"""Our rules are held to buf: the same changes break the same rules, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

from linkspan.contracts.compat import RULES, compare
from linkspan.contracts.snapshot import Snapshot
from tests.compat.case import Pair, pairs
from tests.compat.conftest import by_buf, rules_of_buf
from tests.compat.corpus import CASES

if TYPE_CHECKING:
    from pathlib import Path

    from linkspan.contracts.compat_rule import Rule

HELD = [rule for rule in RULES if rule.group != "linkspan"]
PAIRS = pairs(CASES)


def read(path: Path) -> Snapshot:
    return Snapshot.of(FileDescriptorSet.from_binary(path.read_bytes()))


def broken(before: Path, after: Path, rules: list[Rule]) -> set[str]:
    return {finding.rule.id for finding in compare(read(before), read(after), rules=rules)}


@pytest.mark.parametrize("pair", PAIRS, ids=[pair.id for pair in PAIRS])
def test_change_breaks_the_same_rules_for_buf_and_for_us(pair: Pair, buf: str, built: dict[str, tuple[Path, Path]]) -> None:
    before, after = built[pair.id]
    assert broken(before, after, HELD) == pair.breaks
    assert by_buf(buf, before, after) == pair.breaks - pair.unseen


@pytest.mark.parametrize("rule", HELD, ids=[rule.id for rule in HELD])
def test_corpus_notices_when_a_rule_is_off(rule: Rule, built: dict[str, tuple[Path, Path]]) -> None:
    others = [each for each in HELD if each is not rule]
    assert any(broken(*built[pair.id], others) != pair.breaks for pair in PAIRS)


@pytest.mark.parametrize("rule", HELD, ids=[rule.id for rule in HELD])
def test_corpus_breaks_each_rule_and_comes_near_it_without(rule: Rule) -> None:
    assert any(case.rule == rule.id for case in CASES)


def test_our_rules_are_those_that_buf_would_check(buf: str) -> None:
    assert {rule.id for rule in HELD} == rules_of_buf(buf)


def test_corpus_has_at_least_sixty_changes() -> None:
    assert len(PAIRS) >= 60
    assert len({case.id for case in CASES}) == len(CASES)
