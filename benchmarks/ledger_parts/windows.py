"""How far calls went beyond a limit, exactly, over every window of time. Pure."""

from __future__ import annotations

from collections.abc import Iterable

Steps = Iterable[tuple[int, int]]


def overshoot(calls: Steps, limit: int, period_us: int) -> int:
    """Units by which some window took more than GCRA allows: `limit` at once and `limit` a period on top.

    Calls are (admission in microseconds, units) in order. The largest excess over all windows [t1, t2], that is of
    sum(units) - limit - limit * (t2 - t1) / period, is the highest level of a leaky bucket (Lindley): one pass tells.
    """
    level = worst = before = 0
    for at, units in calls:
        level = max(0, level - max(0, at - before) * limit) + units * period_us
        before = max(at, before)
        worst = max(worst, level - limit * period_us)
    return -(-worst // period_us)


def most(steps: Steps) -> int:
    """The highest sum over a prefix of ordered (place, change)."""
    total = highest = 0
    for _, change in steps:
        total += change
        highest = max(highest, total)
    return highest
