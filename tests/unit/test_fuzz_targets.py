"""The fuzzer's targets on their seeds, and on every input that once broke one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import targets
from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS
from linkspan.errors import Error
from linkspan.message import decode

FOUND = Path(__file__).resolve().parents[2] / "fuzz" / "found"


def test_every_target_has_seeds() -> None:
    assert set(SEEDS) == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_kept_inputs_pass(name: str) -> None:
    target = TARGETS[name]()
    kept = [path.read_bytes() for path in sorted((FOUND / name).glob("*"))]
    try:
        for data in (b"", *SEEDS[name], *(seed[:-3] for seed in SEEDS[name]), *kept):
            target(data)
    finally:
        getattr(target, "close", list)()


def test_target_that_breaks_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round trip that loses something is no silent success."""
    monkeypatch.setattr(targets, "decode", lambda cls, data: decode(cls, data[:-1]))  # the fault

    with pytest.raises((AssertionError, Error)):
        targets.binary(SEEDS["binary"][0] + b"\x0a")
