"""What a benchmark's rounds leave unsaid of their median ratio, and what decides where the bar lies in it."""

from __future__ import annotations

import pytest

from benchmarks.harness import Sample, interval
from benchmarks.report import Goal, throughput


@pytest.mark.parametrize(("count", "low", "high"), [(1, 1, 1), (5, 1, 5), (6, 1, 6), (9, 2, 8), (25, 8, 18), (100, 40, 61)])
def test_bounds_are_the_ranks_of_the_sign_test(count: int, low: int, high: int) -> None:
    assert interval([float(number) for number in reversed(range(1, count + 1))]) == (low, high)


def rounds(*rates: float, cpu: float) -> list[Sample]:
    return [Sample(rate=rate, cpu={"consumer": cpu}) for rate in rates]


def test_bar_outside_the_noise_is_judged_by_the_rate_though_single_rounds_fall_short() -> None:
    ours, peer = rounds(*[4.0] * 5 + [6.0] * 20, cpu=1.0), rounds(*[1.0] * 25, cpu=1.0)

    entry = throughput(Goal("x", 5.0), ours, peer)
    assert entry.holds
    assert "note" not in entry.detail


def test_bar_inside_the_noise_is_judged_by_cpu_per_operation() -> None:
    ours, peer = rounds(*[4.0] * 12 + [6.0] * 13, cpu=1.0), rounds(*[1.0] * 25, cpu=3.0)

    entry = throughput(Goal("x", 5.0), ours, peer)
    assert not entry.holds
    assert "needs 3.00 times ours" in entry.detail["note"]
