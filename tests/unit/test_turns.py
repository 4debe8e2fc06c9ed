"""Held messages take turns: many together, or one alone that may end its process."""

from __future__ import annotations

from functools import partial

from linkspan.letters.turns import Turns


def test_one_alone_waits_until_the_others_have_left_and_keeps_the_next_out() -> None:
    turns, inside = Turns(2), list[str]()
    for name, alone in (("a", False), ("b", False), ("killer", True), ("c", False)):
        turns.enter(partial(inside.append, name), alone=alone)
    seen = [inside.copy()]
    for _ in range(3):
        turns.leave()
        seen.append(inside.copy())

    assert seen == [["a", "b"], ["a", "b"], ["a", "b", "killer"], ["a", "b", "killer", "c"]]


def test_no_more_than_that_many_are_inside_and_the_first_to_come_is_the_next() -> None:
    turns, inside = Turns(2), list[str]()
    for name in "abcd":
        turns.enter(partial(inside.append, name), alone=False)

    assert inside == ["a", "b"]
    turns.leave()
    assert inside == ["a", "b", "c"]
