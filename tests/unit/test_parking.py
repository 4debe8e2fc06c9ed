"""A held message that was being handled when its process ended: suspected among others, blamed when it was alone."""

from __future__ import annotations

from linkspan import Limits
from linkspan.letters.parking import blamed, buried, ended_process, spent, suspected
from linkspan.ports import Letter, LetterState

LIMITS = Limits(inline=3, parked=(1.0, 2.0))


def letter() -> Letter:
    return Letter("shop:t", "k", "/s", "1", "t", b"", b"", LetterState.PARKED)


def test_one_that_ends_its_process_each_time_has_had_all_its_tries_after_a_round_for_each_death() -> None:
    held, seen = letter(), list[tuple[int, float, bool]]()
    for death in range(3):
        held = blamed(held, limits=LIMITS, now=100.0 * death)
        seen.append((held.attempts, held.due, spent(held, LIMITS)))

    assert seen == [(3, 1.0, False), (6, 102.0, False), (9, 202.0, True)]
    assert ended_process(held)
    dead = buried(held, 300.0)
    assert (dead.state, dead.code, "each time" in dead.error) == (LetterState.DEAD, "unknown", True)


def test_one_that_was_among_others_is_suspected_and_loses_no_try() -> None:
    held = suspected(letter(), 5.0)

    assert (held.attempts, held.state, held.first_failed, ended_process(held)) == (0, LetterState.PARKED, 5.0, True)
