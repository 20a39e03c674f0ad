"""The window checker finds what was planted, and agrees with trying every window."""

from __future__ import annotations

import random
from fractions import Fraction
from math import ceil

from benchmarks.ledger_parts.windows import most, overshoot

SECOND = 1_000_000


def every_window(calls: list[tuple[int, int]], limit: int, period: int) -> int:
    worst = Fraction(0)
    for first in range(len(calls)):
        for last in range(first, len(calls)):
            units = sum(count for _, count in calls[first : last + 1])
            worst = max(worst, units - limit - Fraction((calls[last][0] - calls[first][0]) * limit, period))
    return ceil(worst)


def paced(limit: int) -> list[tuple[int, int]]:
    """A full burst, then as fast as it refills."""
    return [(0, 1)] * limit + [(number * SECOND // limit, 1) for number in range(1, 40)]


def test_a_burst_and_then_the_exact_rate_is_no_overshoot():
    assert overshoot(paced(10), 10, SECOND) == 0


def test_one_planted_call_is_found():
    calls = sorted([*paced(10), (2_345_678, 1)])
    assert overshoot(calls, 10, SECOND) == 1


def test_a_planted_call_of_many_tokens_is_measured():
    calls = sorted([*paced(10), (2_300_001, 7)])
    assert overshoot(calls, 10, SECOND) == every_window(calls, 10, SECOND) == 7


def test_it_agrees_with_trying_every_window():
    chance = random.Random(7)
    for _ in range(200):
        calls = sorted((chance.randrange(3 * SECOND), chance.randrange(9)) for _ in range(chance.randrange(1, 25)))
        limit = chance.randrange(1, 40)
        assert overshoot(calls, limit, SECOND) == every_window(calls, limit, SECOND)


def test_most_is_the_highest_sum_on_the_way():
    assert most([(1, 5), (2, 7), (3, -7), (4, 6)]) == 12
