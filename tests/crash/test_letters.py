"""Poison stops nobody else, and a redrive causes no outage: the short forms, by their counts. Rates and waits are for `make proof`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proof import poison, redrive

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(400)
async def test_poisoned_keys_wait_in_order_while_the_others_flow_and_processes_die() -> None:
    found = await poison.prove(keys=200, each=5, rate=200.0)

    assert found["first"] == []
    assert found["kills"] >= 2
    assert found["tried"].startswith("1000 messages of 200 keys, 2 of them poison")


@pytest.mark.timeout(400)
async def test_redrive_stops_where_it_fails_and_doubles_nothing_beside_live_messages(tmp_path: Path) -> None:
    found = await redrive.prove(tmp_path, count=400, rate=100.0, live=50.0, seconds=3.0)

    assert found["first"] == []
    assert found["stopped_in"] <= 5.0
    assert found["tried_while_broken"] <= 30
