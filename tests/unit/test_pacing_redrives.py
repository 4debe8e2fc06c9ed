"""How a redrive keeps its pace: turns that are dealt out evenly, and keys that wait for theirs."""

from __future__ import annotations

import pytest

from linkspan.letters.held_key import HeldKey
from linkspan.letters.redriving import _Bucket
from linkspan.testing.clock import fake_runtime


async def test_turns_come_evenly_and_a_part_of_the_keys_has_a_part_of_the_pace() -> None:
    runtime, clock = fake_runtime()
    bucket = _Bucket(runtime.clock, 10.0)

    assert [bucket.wait() for _ in range(4)] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    await clock.advance(5.0)
    assert [bucket.wait(4), bucket.wait()] == pytest.approx([0.0, 0.4])
    bucket.share = 0.5
    await clock.advance(5.0)
    assert [bucket.wait(), bucket.wait()] == pytest.approx([0.0, 0.2])


async def test_what_a_redrive_set_going_waits_for_its_pace_and_nothing_else_does() -> None:
    asked = list[bool]()
    paced = HeldKey(paced=True)

    async def pace() -> None:
        asked.append(paced.advancing)

    await HeldKey().turn(pace)
    assert asked == []
    await paced.turn(pace)
    assert (asked, paced.advancing) == ([True], False)
