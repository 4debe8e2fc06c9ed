"""The checker catches each kind of broken promise, and lets true histories pass."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from linkspan.testing.history import Entry, History, Kind, check

if TYPE_CHECKING:
    from pathlib import Path


def true_history(seed: int = 1) -> list[Entry]:
    """Make a history of 20 keys with 10 messages each, in a random interleaving that keeps each key's order."""
    source = random.Random(seed)
    queues = {f"k{key}": [f"k{key}-{number}" for number in range(1, 11)] for key in range(20)}
    entries: list[Entry] = []
    while queues:
        key = source.choice(sorted(queues))
        id_ = queues[key].pop(0)
        number = int(id_.rpartition("-")[2])
        entries.append(Entry(Kind.INVOKED, id_, key, number))
        entries.append(Entry(Kind.ACKNOWLEDGED, id_, key, number))
        entries.append(Entry(Kind.EFFECT, id_, key, number, "mail"))
        if not queues[key]:
            del queues[key]
    return entries


def rules(entries: list[Entry]) -> set[str]:
    return {violation.rule for violation in check(entries, ["mail"])}


@pytest.mark.parametrize("seed", range(5))
def test_true_history_passes(seed: int) -> None:
    assert check(true_history(seed), ["mail"]) == []


@pytest.mark.parametrize("place", [0, 57, 199])
def test_missing_effect_is_lost(place: int) -> None:
    entries = true_history()
    effects = [entry for entry in entries if entry.kind is Kind.EFFECT]
    entries.remove(effects[place])

    assert [(v.rule, v.id) for v in check(entries, ["mail"])] == [("lost", effects[place].id)]


@pytest.mark.parametrize("place", [0, 57, 199])
def test_repeated_effect_is_double(place: int) -> None:
    entries = true_history()
    effects = [entry for entry in entries if entry.kind is Kind.EFFECT]
    entries.insert(entries.index(effects[place]) + 1, effects[place])

    assert [(v.rule, v.id) for v in check(entries, ["mail"])] == [("double", effects[place].id)]


def test_effect_that_nobody_asked_for_is_a_ghost() -> None:
    assert rules([*true_history(), Entry(Kind.EFFECT, "k1-99", "k1", 99, "mail")]) == {"ghost"}


def test_effect_of_a_refused_message_is_caught() -> None:
    extra = [Entry(Kind.INVOKED, "x", "kx", 1), Entry(Kind.REFUSED, "x", "kx", 1), Entry(Kind.EFFECT, "x", "kx", 1, "mail")]

    assert rules([*true_history(), *extra]) == {"refused"}


@pytest.mark.parametrize("key", ["k0", "k7", "k19"])
def test_swapped_effects_of_a_key_break_order(key: str) -> None:
    entries = true_history()
    places = [place for place, entry in enumerate(entries) if entry.kind is Kind.EFFECT and entry.key == key]
    first, second = places[3], places[4]
    entries[first], entries[second] = entries[second], entries[first]

    assert rules(entries) == {"order"}


def test_unknown_message_may_have_an_effect_or_none_but_not_two() -> None:
    unknown = Entry(Kind.INVOKED, "u", "ku", 1)
    effect = Entry(Kind.EFFECT, "u", "ku", 1, "mail")

    assert check([unknown], ["mail"]) == []
    assert check([unknown, effect], ["mail"]) == []
    assert rules([unknown, effect, effect]) == {"double"}


def test_dead_letter_is_not_lost() -> None:
    entries = [Entry(Kind.ACKNOWLEDGED, "d", "kd", 1), Entry(Kind.DEAD, "d", "kd", 1, "mail")]

    assert check(entries, ["mail"]) == []
    assert {violation.consumer for violation in check(entries, ["mail", "audit"])} == {"audit"}


def test_file_keeps_whole_lines_and_drops_a_cut_one(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.add(Entry(Kind.INVOKED, "a", "k", 1))
    history.add(Entry(Kind.EFFECT, "a", "k", 1, "mail"))
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"kind": "effe')

    assert [entry.kind for entry in history.read()] == [Kind.INVOKED, Kind.EFFECT]
