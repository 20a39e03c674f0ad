"""What a tenant or one of its keys has used of its limits, at this instant: as the next admission would count it.

Read from Redis by the rules of `lua/admit.lua`, in one step and by Redis's clock. What cannot be read is None, never 0:
no answer, or counters that the ledger does not vouch for (then nothing is admitted either).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Sum
from django.utils import timezone

from tenants import costs, counters, metering
from tenants.models import APIKey, Budget, LedgerHead, Quota, RefusalCount, Tenant

if TYPE_CHECKING:
    import redis

PERIODS_US = (1_000_000, 60_000_000, 1_000_000, 60_000_000)  # of the first four of metering.LIMITS
UNREACHABLE, UNVOUCHED = "unreachable", "unvouched"
TIGHT = 0.8  # share of a limit from which on it counts as tight


@dataclass(frozen=True)
class Gauge:
    """One limit, a name of `metering.LIMITS`. `limit` None: there is none. `used` None: not counted, or not known."""

    name: str
    limit: int | None
    used: int | None

    @property
    def tight(self) -> bool:
        return self.limit is not None and self.used is not None and self.used >= TIGHT * self.limit


@dataclass(frozen=True)
class Reading:
    """`problem` is empty, UNREACHABLE or UNVOUCHED; `spent` and `held` are nano-dollars of `month` (YYYYMM)."""

    limits: Sequence[Gauge]
    budget: int | None
    month: str
    spent: int | None = None
    held: int | None = None
    problem: str = ""

    @property
    def used(self) -> int | None:
        """Spent and held, which together may not pass the budget."""
        return None if self.spent is None or self.held is None else self.spent + self.held

    @property
    def money_tight(self) -> bool:
        return bool(self.budget) and self.used is not None and self.used >= TIGHT * (self.budget or 0)

    @property
    def left(self) -> int | None:
        return None if self.budget is None or self.used is None else max(0, self.budget - self.used)


def read(tenant: Tenant, key: APIKey | None = None) -> Reading:
    """The limits of `tenant`, or of its key, with what is used of them now. The money is always the tenant's."""
    import redis

    quota = Quota.objects.filter(tenant=tenant, key=key).first() or Quota(tenant=tenant)
    limits = [getattr(quota, name) for name in metering.LIMITS]
    budget = Budget.objects.filter(tenant=tenant).values_list("monthly_nano", flat=True).first()
    mark = LedgerHead.objects.values_list("mark", flat=True).first() or ""
    try:
        return _ask(counters.connect(), tenant, str(key.pk if key else tenant.pk), mark, limits, budget)
    except redis.RedisError:
        return _unknown(tenant, limits, budget, UNREACHABLE)


def under_way(tenant: Tenant) -> int | None:
    """Open calls of `tenant` at this instant; None if nobody knows."""
    import redis

    mark = LedgerHead.objects.values_list("mark", flat=True).first()
    try:
        step: Any = counters.connect().pipeline(transaction=True)
        found, open_ = step.hget(metering.STATE, "mark").hget(metering.OPEN, str(tenant.pk)).execute()
    except redis.RedisError:
        return None
    return int(open_ or 0) if mark and found == mark else None


def refused(tenant: Tenant, key: APIKey | None = None) -> dict[str, int]:
    """Calls that each limit refused in the last hour, by its name; the minute under way is not counted yet."""
    rows = RefusalCount.objects.filter(tenant=tenant, minute__gte=timezone.now() - timedelta(hours=1))
    if key:
        rows = rows.filter(key_id=key.pk)
    return dict(rows.values_list("limit").annotate(Sum("count")).order_by())


def _ask(
    client: redis.Redis, tenant: Tenant, owner: str, mark: str, limits: Sequence[int | None], budget: int | None
) -> Reading:
    seconds, _ = client.time()
    month = f"{costs.today(tenant, datetime.fromtimestamp(seconds, UTC)):%Y%m}"
    packed = metering.gauge(str(tenant.pk), owner, month)
    now, found, since, *rates, open_, spent, held = counters.run(client, metering.GAUGE, packed)
    if not mark or found != mark:
        return _unknown(tenant, limits, budget, UNVOUCHED)
    counted = [*used(limits[:4], rates, int(now), int(since or 0)), int(open_ or 0)]
    gauges = [Gauge(*each) for each in zip(metering.LIMITS, limits, counted, strict=True)]
    return Reading(gauges, budget, month, int(spent or 0), int(held or 0))


def used(limits: Sequence[int | None], rates: Sequence[str | None], now_us: int, since_us: int) -> list[int | None]:
    """Units in use of the four rates, rounded up as a refusal reports them; `rates` is [at, level 1 .. level 4].

    A bucket nobody has drawn from counts as if it had been full when the counters were rebuilt (`since_us`).
    """
    at = None if rates[0] is None else int(rates[0])
    found: list[int | None] = []
    for limit, level, period in zip(limits, rates[1:], PERIODS_US, strict=True):
        if limit is None:
            found.append(None)
            continue
        begun = limit * period if at is None else int(level or 0)
        drained = max(now_us - (since_us if at is None else at), 0) * limit
        found.append(-(-max(0, begun - drained) // period))
    return found


def _unknown(tenant: Tenant, limits: Sequence[int | None], budget: int | None, problem: str) -> Reading:
    gauges = [Gauge(name, limit, None) for name, limit in zip(metering.LIMITS, limits, strict=True)]
    return Reading(gauges, budget, costs.this_month(tenant), problem=problem)
