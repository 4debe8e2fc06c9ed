"""The power is cut under SQLite and NATS: nothing acknowledged is lost, no event is out whose row is gone. And the check can fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.power.cuts import missing, power_cuts

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not run: {missing()}")

CUTS = 5


async def test_power_cut_loses_nothing_acknowledged_and_leaves_no_ghost(tmp_path: Path) -> None:
    found = await power_cuts(tmp_path, CUTS, seed=1)

    assert found.violations == []
    assert found.cuts == CUTS
    assert found.acknowledged >= 20 * CUTS


async def test_nats_that_does_not_sync_loses_and_the_check_sees_it(tmp_path: Path) -> None:
    """The negative control of the broker: its default, which syncs every two minutes."""
    found = await power_cuts(tmp_path, 1, seed=2, least=150, sync="2m")

    assert {(each.rule, each.consumer) for each in found.violations} == {("lost", "event")}


async def test_sqlite_that_does_not_sync_makes_ghosts_and_the_check_sees_it(tmp_path: Path) -> None:
    """The negative control of the store: `synchronous = normal`, which undoes commits whose events are out."""
    found = await power_cuts(tmp_path, 1, seed=3, least=150, synchronous="normal")

    assert {("lost", "row"), ("ghost", "event")} <= {(each.rule, each.consumer) for each in found.violations}
