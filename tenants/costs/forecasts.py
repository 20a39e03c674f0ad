"""What a month will have cost at its end, from the days seen. Pure: daily sums in, a forecast out.

Method: the whole days of the last four weeks, from the first day with a call on, are samples of a day's spend; working
days and weekends are two kinds once both were seen three times, else one. Of the days to come, n_k of kind k are
expected at the mean m_k of its N_k samples; their sum has the prediction variance sum_k (n_k + n_k^2 / N_k) s_k^2: the
spread of the days and the uncertainty of the mean. The interval is Student's t at 80 %, two-sided, with the degrees of
freedom of Welch and Satterthwaite. Today counts as the part of a day that is left. Nothing is drawn, so the same days
give the same forecast.

It assumes that days of one kind are alike and independent: a launch or a holiday is in no sample. With fewer than
three whole days there is no forecast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import fmean, variance
from typing import Any

WINDOW = 28  # days looked back
ENOUGH = 3  # whole days seen, and of each kind before kinds are told apart
LEVEL = 80  # per cent
# Student's t, 90th percentile, by degrees of freedom 1 to 30.
T90 = (
    3.078, 1.886, 1.638, 1.533, 1.476, 1.440, 1.415, 1.397, 1.383, 1.372, 1.363, 1.356, 1.350, 1.345, 1.341,
    1.337, 1.333, 1.330, 1.328, 1.325, 1.323, 1.321, 1.319, 1.318, 1.316, 1.315, 1.314, 1.313, 1.311, 1.310,
)  # fmt: skip
NORMAL90 = 1.2816


@dataclass(frozen=True, slots=True)
class Ahead:
    """The month's spend up to the end of a day to come, nano-dollars: expected, and the 80 % interval."""

    day: date
    low: int
    expected: int
    high: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """`path` has today's end first and the month's last day last; `seen` whole days went into it."""

    spent: int
    seen: int
    kinds: int  # 2: working days and weekends apart
    path: tuple[Ahead, ...]

    @property
    def end(self) -> Ahead:
        return self.path[-1]

    def reaches(self, nano: int) -> date | None:
        """The day on which the expected spend passes `nano`; None if not in this month."""
        return next((ahead.day for ahead in self.path if ahead.expected > nano), None)

    def verdict(self, budget: int) -> str:
        """`over`, `tight` (the interval holds the budget) or `within`."""
        if self.end.low > budget:
            return "over"
        return "tight" if self.end.high > budget else "within"


def of_month(rows: Sequence[dict[str, Any]], now: datetime) -> Forecast | None:
    """The forecast at `now` (in the tenant's time zone) from rows {day, spent}; None while it is too early."""
    today = now.date()
    spent = {row["day"]: int(row["spent"]) for row in rows}
    samples = _samples(spent, today)
    if len(samples) < ENOUGH:
        return None
    split = all(sum(_weekend(day) is kind for day in samples) >= ENOUGH for kind in (True, False))
    kinds: dict[bool, list[int]] = {}
    for day, nano in samples.items():
        kinds.setdefault(split and _weekend(day), []).append(nano)
    so_far = sum(nano for day, nano in spent.items() if day.replace(day=1) == today.replace(day=1))
    left = 1 - (now - now.replace(hour=0, minute=0, second=0, microsecond=0)) / timedelta(days=1)
    return Forecast(so_far, len(samples), len(kinds), tuple(_path(kinds, split, so_far, today, max(0.0, left))))


def _samples(spent: dict[date, int], today: date) -> dict[date, int]:
    """Whole days by what they cost; a day without calls after the first one with some is a zero."""
    before = [day for day in spent if day < today]
    if not before:
        return {}
    first = max(min(before), today - timedelta(WINDOW))
    return {day: spent.get(day, 0) for day in (first + timedelta(n) for n in range((today - first).days))}


def _path(kinds: dict[bool, list[int]], split: bool, so_far: int, today: date, left: float) -> list[Ahead]:
    means = {kind: fmean(values) for kind, values in kinds.items()}
    spreads = {kind: float(variance(values)) for kind, values in kinds.items()}
    ahead = dict.fromkeys(kinds, 0.0)  # days to come, by kind
    path, day = [], today
    while day.month == today.month:
        ahead[split and _weekend(day)] += left if day == today else 1.0
        expected = so_far + sum(ahead[kind] * means[kind] for kind in kinds)
        reach = _reach(ahead, spreads, {kind: len(values) for kind, values in kinds.items()})
        path.append(Ahead(day, max(so_far, round(expected - reach)), round(expected), round(expected + reach)))
        day += timedelta(1)
    return path


def _reach(ahead: dict[bool, float], spreads: dict[bool, float], seen: dict[bool, int]) -> float:
    """Half the width of the 80 % prediction interval."""
    parts = {kind: (ahead[kind] + ahead[kind] ** 2 / seen[kind]) * spreads[kind] for kind in ahead}
    whole = sum(parts.values())
    if not whole:
        return 0.0
    freedom = whole**2 / sum(part**2 / (seen[kind] - 1) for kind, part in parts.items())
    t = T90[max(0, int(freedom + 1e-9) - 1)] if freedom <= len(T90) else NORMAL90
    return float(t * whole**0.5)


def _weekend(day: date) -> bool:
    return day.weekday() >= 5
