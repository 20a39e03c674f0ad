"""What proposed limits, a budget or prices would have done to the last days' calls: a replay of the usage rows.

The replay asks each call at the instant of its admission, oldest first, with the arithmetic of `lua/admit.lua`: whole
levels, microseconds, one period's burst; the limit that lasts longest is the one that refuses, a refused call takes
nothing. What it cannot know is in CAVEATS and belongs beside every result.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from tenants import costs, metering
from tenants.costs import rows
from tenants.costs.proposals import BadProposal, Proposal, in_force
from tenants.models import RefusalCount, Tenant, UsageEvent

__all__ = ["BadProposal", "CAVEATS", "Proposal", "Result", "in_force", "replay", "run"]
PERIODS = (1_000_000, 60_000_000, 1_000_000, 60_000_000)  # microseconds, as in lua/admit.lua
MOST_DAYS = 92
MOST_ROWS = 1_000_000  # then the replay is cut and says so
READ = 5_000  # rows at a time
FIELDS = (
    "id", "request_id", "source", "occurred_at", "day", "key_id", "model", "input_tokens", "cached_tokens",
    "output_tokens", "cost_nano", "latency_ms",
)  # fmt: skip
CAVEATS = (
    _("Calls that were refused then are not in the rows: their sizes are not kept, only how many they were."),
    _("A refused caller tries again or changes what it does; here it does neither."),
    _(
        "A real admission reserves the most tokens and money that a call can take; rows hold what it took. "
        "So token limits and budgets refuse somewhat more calls than shown."
    ),
    _("Calls under way are counted from the admission for as long as the answer took."),
)


@dataclass
class Result:
    """What the replay found. `refused` counts by (scope, limit); `reached` says when each month's budget first refused.

    `cost` is that of the calls that pass, `cost_of_all` of every call, both under the proposal; `booked` as it was.
    """

    since: date
    until: datetime
    calls: int = 0
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_day: dict[date, list[int]] = field(default_factory=dict)  # day -> [calls, refused]
    reached: dict[str, datetime] = field(default_factory=dict)
    booked: int = 0
    cost: int = 0
    cost_of_all: int = 0
    cut: bool = False
    refused_then: int = 0

    @property
    def refusals(self) -> int:
        return self.refused.total()

    @property
    def share(self) -> float:
        return self.refusals / self.calls if self.calls else 0.0

    def plain(self) -> dict[str, Any]:
        """Ready for JSON: money as exact decimals of dollars."""
        return {
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "cut": self.cut,
            "calls": self.calls,
            "refused": self.refusals,
            "by_limit": [
                {"scope": scope, "limit": name, "calls": n} for (scope, name), n in self.refused.most_common()
            ],
            "by_day": [{"day": str(day), "calls": n[0], "refused": n[1]} for day, n in sorted(self.by_day.items())],
            "budget_reached": {month: at.isoformat() for month, at in self.reached.items()},
            "cost": costs.dollars(self.cost),
            "cost_of_all": costs.dollars(self.cost_of_all),
            "booked": costs.dollars(self.booked),
            "refused_then": self.refused_then,
            "cannot_know": [str(caveat) for caveat in CAVEATS],
        }


class Limiter:
    """The limits of one scope, as lua/admit.lua keeps them; `open_` is how many of its calls are under way."""

    def __init__(self, scope: str, limits: Sequence[int | None]) -> None:
        self.scope, self.limits = scope, limits
        self.levels: list[int] = [0] * 4
        self.at = 0
        self.ends: list[int] = []  # instants at which open calls end, a heap

    def ask(self, now: int, tokens: int) -> tuple[list[int], list[tuple[int, str]]]:
        """The levels with this call in them, and (wait, limit) of each limit that refuses it; -1: waits for ever."""
        needs, levels, refusing = (1, 1, tokens, tokens), list(self.levels), []
        for kind, (period, need) in enumerate(zip(PERIODS, needs, strict=True)):
            limit = self.limits[kind]
            if limit is None:
                continue
            level = max(0, levels[kind] - min(max(now - self.at, 0), period) * limit)
            levels[kind], capacity = level + need * period, limit * period
            if levels[kind] > capacity:
                wait = -1 if need > limit else -((capacity - levels[kind]) // limit)
                refusing.append((wait, metering.LIMITS[kind]))
        while self.ends and self.ends[0] <= now:
            heapq.heappop(self.ends)
        most = self.limits[4]
        if most is not None and len(self.ends) >= most:
            refusing.append((1_000_000 if most else -1, metering.LIMITS[4]))
        return levels, refusing

    def take(self, now: int, levels: list[int], ends: int) -> None:
        self.at, self.levels = now, levels
        if self.limits[4] is not None:
            heapq.heappush(self.ends, ends)


def run(
    tenant: Tenant, proposal: Proposal, days: int = 7, most: int = MOST_ROWS, now: datetime | None = None
) -> Result:
    """Replays the last `days` days, today among them; at most `most` rows, oldest first. Raises BadProposal."""
    proposal.check()
    if not 1 <= days <= MOST_DAYS:
        raise BadProposal(gettext("A back-test goes 1 to %(most)d days back.") % {"most": MOST_DAYS}, "days")
    if proposal.key and not tenant.api_keys.filter(pk=proposal.key).exists():
        raise BadProposal(gettext("This tenant has no key of that id."), "key")
    until = now or timezone.now()
    since = costs.today(tenant, until) - timedelta(days - 1)
    start = costs.instants(tenant, since, since)[0]
    found = tenant.usage.filter(occurred_at__gte=start, occurred_at__lte=until).order_by("occurred_at", "id")
    result = replay(
        found.values(*FIELDS)[: most + 1].iterator(READ), proposal, since, until, most, _before(tenant, since)
    )
    told = RefusalCount.objects.filter(tenant=tenant, minute__gte=start, minute__lte=result.until)
    result.refused_then = told.aggregate(n=Sum("count"))["n"] or 0
    return result


def replay(
    calls: Iterable[dict[str, Any]], proposal: Proposal, since: date, until: datetime, most: int, before: dict[str, int]
) -> Result:
    """The replay of rows (dicts of FIELDS, oldest first), at most `most`; `before`: spent in a month until then."""
    result, spent = Result(since, until), Counter(before)
    limiter = Limiter("key" if proposal.key else "tenant", proposal.limits)
    turned_away: set[str] = set()
    for number, row in enumerate(calls):
        if number == most:
            result.cut, result.until = True, row["occurred_at"]
            break
        cost, month = proposal.cost(row), f"{row['day']:%Y%m}"
        result.booked += row["cost_nano"]
        result.cost_of_all += cost
        if row["source"] == UsageEvent.Source.ADJUSTMENT:
            refusal = ("", "") if row["request_id"] in turned_away else None
        else:
            refusal = _admit(row, proposal, limiter, cost, spent[month])
            _count(result, row, month, refusal)
        if refusal is None:
            spent[month] += cost
            result.cost += cost
        elif refusal != ("", ""):
            turned_away.add(row["request_id"])
    return result


def _admit(row: dict[str, Any], proposal: Proposal, limiter: Limiter, cost: int, spent: int) -> tuple[str, str] | None:
    """Takes what the call needs, or says which limit refuses it: the one that lasts longest, a budget above all."""
    at = (row["occurred_at"] - rows.EPOCH) // timedelta(microseconds=1)
    limited = not proposal.key or row["key_id"] == proposal.key
    levels, refusing = limiter.ask(at, row["input_tokens"] + row["output_tokens"]) if limited else ([], [])
    if proposal.budget_nano is not None and spent + cost > proposal.budget_nano:
        return "tenant", "budget"
    if refusing:
        first = refusing[0]
        for each in refusing[1:]:
            if first[0] >= 0 and (each[0] < 0 or each[0] > first[0]):
                first = each
        return limiter.scope, first[1]
    if limited:
        limiter.take(at, levels, at + row["latency_ms"] * 1_000)
    return None


def _count(result: Result, row: dict[str, Any], month: str, refusal: tuple[str, str] | None) -> None:
    result.calls += 1
    day = result.by_day.setdefault(row["day"], [0, 0])
    day[0] += 1
    if refusal is None:
        return
    day[1] += 1
    result.refused[refusal] += 1
    if refusal[1] == "budget":
        result.reached.setdefault(month, row["occurred_at"])


def _before(tenant: Tenant, since: date) -> dict[str, int]:
    """What the first month had cost before the replay begins, as booked."""
    first = since.replace(day=1)
    return {f"{since:%Y%m}": sum(row["spent"] for row in costs.days(tenant, first, since))}
