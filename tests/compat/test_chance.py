"""Contracts that are changed at random break the same rules for Buf and for us."""

from __future__ import annotations

import subprocess
from random import Random
from typing import TYPE_CHECKING

import pytest
from protobuf.wkt.google.protobuf.descriptor_pb import FileDescriptorSet

from linkspan.contracts.compat import RULES, compare
from linkspan.contracts.snapshot import Snapshot
from tests.compat.case import texts
from tests.compat.chance import changed, made
from tests.compat.conftest import by_buf

if TYPE_CHECKING:
    from pathlib import Path

SEEDS = range(60)
HELD = [rule for rule in RULES if rule.group != "linkspan"]


@pytest.fixture(scope="module")
def folder(buf: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build all versions, older and newer, each seed in a package of its own."""
    where = tmp_path_factory.mktemp("chance")
    for seed in SEEDS:
        chance = Random(seed)
        before = made(chance)
        for side, version in (("before", before), ("after", changed(before, chance))):
            for path, text in texts(version.text(), f"seed{seed}").items():
                (where / side / path).parent.mkdir(parents=True, exist_ok=True)
                (where / side / path).write_text(text, encoding="utf-8")
    for side in ("before", "after"):
        subprocess.run([buf, "build", side, "-o", f"{side}.binpb"], cwd=where, check=True, timeout=100)
        whole = FileDescriptorSet.from_binary((where / f"{side}.binpb").read_bytes())
        for file in whole.file:
            (where / f"{side}-{file.package}.binpb").write_bytes(FileDescriptorSet(file=[file]).to_binary())
    return where


def broken(seed: int, folder: Path) -> set[str]:
    before, after = (FileDescriptorSet.from_binary((folder / f"{side}-seed{seed}.binpb").read_bytes()) for side in ("before", "after"))
    return {finding.rule.id for finding in compare(Snapshot.of(before), Snapshot.of(after), rules=HELD)}


@pytest.mark.parametrize("seed", SEEDS)
def test_random_change_breaks_the_same_rules(seed: int, folder: Path, buf: str) -> None:
    assert broken(seed, folder) == by_buf(buf, folder / f"before-seed{seed}.binpb", folder / f"after-seed{seed}.binpb")


def test_seeds_break_most_rules(folder: Path) -> None:
    assert len(set[str]().union(*(broken(seed, folder) for seed in SEEDS))) >= 15
