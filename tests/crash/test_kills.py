"""Kills under load: services at random and at commit points, brokers one at a time and all at once; nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proof.kills import one_batch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

SEED = 1


async def test_sqlite_and_one_nats_server(tmp_path: Path) -> None:
    found = await one_batch("sqlite-nats", SEED, 26, tmp_path / "run", None)

    assert found["violations"] == []
    assert found["kills"] >= 26
    assert found["sums"]["acknowledged"] > 0
