"""How many calls each limit refused, minute by minute: all that is kept of a refused call."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db.models import Sum
from django.db.models.functions import TruncHour, TruncMinute
from django.utils import timezone

from tenants import metering
from tenants.models import APIKey, RefusalCount, Tenant
from tenants.notices import alerts

if TYPE_CHECKING:
    import redis

Counted = dict[tuple[int, str, str, str], int]  # (minute since 1970, tenant, key, limit) -> calls
Figure = dict[str, Any]


def collect(client: redis.Redis) -> int:
    """Moves the counts of finished minutes out of Redis; answers how many rows. Twice is once: rows are set, not added.

    What names no tenant or no key of it is dropped. Not for within a transaction: Redis forgets at once.
    """
    clock: Any = client.time()
    names = [_text(name) for name in client.scan_iter(f"{metering.REFUSED}*", count=1000)]
    finished = [name for name in names if int(name.removeprefix(metering.REFUSED)) < clock[0] // 60]
    if not finished:
        return 0
    counted: Counted = {}
    for name in finished:
        hashed: Any = client.hgetall(name)
        _count(counted, int(name.removeprefix(metering.REFUSED)), hashed)
    rows = list(_rows(counted))
    RefusalCount.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["tenant", "minute", "key_id", "limit"],
        update_fields=["count"],
        batch_size=500,
    )
    latest = max((minute for minute, *_ in counted), default=0)
    spent = {tenant for _minute, tenant, _key, limit in counted if limit == "budget"}
    if spent:
        alerts.exhausted(spent, datetime.fromtimestamp(latest * 60, UTC))
    client.delete(*finished)
    return len(rows)


def _count(counted: Counted, minute: int, hashed: dict[Any, Any]) -> None:
    """Adds one minute's hash; limits of the same name, the tenant's and the key's, are one count."""
    for field, calls in hashed.items():
        tenant, key, number = _text(field).split(" ")
        place = minute, tenant, key, metering.REFUSERS[int(number)][1]
        counted[place] = counted.get(place, 0) + int(calls)


def _rows(counted: Counted) -> Iterator[RefusalCount]:
    keys = APIKey.objects.filter(pk__in={key for _minute, _tenant, key, _limit in counted})
    known = {(str(tenant), key) for tenant, key in keys.values_list("tenant", "pk")}
    for (minute, tenant, key, limit), calls in sorted(counted.items()):
        if (tenant, key) in known:
            at = datetime.fromtimestamp(minute * 60, UTC)
            yield RefusalCount(tenant_id=uuid.UUID(tenant), key_id=key, minute=at, limit=limit, count=calls)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@dataclass(frozen=True)
class Span:
    """The stretch of time that a chart shows: `bars` of `step` each, the last one under way."""

    name: str
    step: timedelta
    bars: int

    def starts(self, now: datetime) -> list[datetime]:
        fresh = now.replace(second=0, microsecond=0)
        last = fresh.replace(minute=0) if self.step == timedelta(hours=1) else fresh
        return [last - self.step * n for n in range(self.bars - 1, -1, -1)]


SPANS = {span.name: span for span in (Span("day", timedelta(hours=1), 24), Span("hour", timedelta(minutes=1), 60))}


@dataclass(frozen=True)
class Counts:
    """Refused calls of a tenant in a span. `bars` are (start, {limit: calls}), `keys` (key id, name, limit, calls)."""

    span: Span
    bars: list[tuple[datetime, dict[str, int]]]
    keys: list[tuple[str, str, str, int]]

    @property
    def total(self) -> int:
        return sum(calls for _id, _name, _limit, calls in self.keys)

    @property
    def limits(self) -> list[str]:
        """Those that refused, in the order in which admission looks at them."""
        refused = {limit for _id, _name, limit, _calls in self.keys}
        return [limit for limit in (*metering.LIMITS, "budget") if limit in refused]

    @property
    def busiest(self) -> tuple[datetime, int]:
        start, calls = max(self.bars, key=lambda bar: sum(bar[1].values()))
        return start, sum(calls.values())


def counts(tenant: Tenant, span: Span) -> Counts:
    """Two sums in the database over the rows of the span, and the names of the keys: three queries."""
    starts = span.starts(timezone.now().astimezone(UTC))
    rows = RefusalCount.objects.filter(tenant=tenant, minute__gte=starts[0])
    trunc = TruncHour if span.step == timedelta(hours=1) else TruncMinute
    by_bar: dict[datetime, dict[str, int]] = {start: {} for start in starts}
    for start, limit, calls in rows.values_list(trunc("minute", tzinfo=UTC), "limit").annotate(n=Sum("count")):
        by_bar.setdefault(start, {})[limit] = calls
    by_key = list(rows.values_list("key_id", "limit").annotate(n=Sum("count")).order_by("-n", "key_id", "limit"))
    names = dict(APIKey.objects.filter(tenant=tenant, pk__in={key for key, *_ in by_key}).values_list("pk", "name"))
    return Counts(span, sorted(by_bar.items()), [(key, names.get(key, key), limit, n) for key, limit, n in by_key])


def figure(counted: Counts, words: dict[str, str], zone: Any) -> Figure:
    """Stacked bars, one colour for each limit that refused; times are those of `zone`."""
    x = [start.astimezone(zone).strftime("%Y-%m-%d %H:%M") for start, _ in counted.bars]
    data = [
        {
            "type": "bar",
            "name": words[limit],
            "x": x,
            "y": [calls.get(limit, 0) for _, calls in counted.bars],
            "marker": {"color": f"--c{number % 5 + 1}", "line": {"width": 0}},
        }
        for number, limit in enumerate(counted.limits)
    ]
    layout = {
        "barmode": "stack",
        "showlegend": len(data) > 1,
        "legend": {"orientation": "h", "y": -0.2},
        "xaxis": {"type": "date", "tickformat": "%H:%M", "nticks": 7, "hoverformat": "%-d %B %H:%M"},
        "yaxis": {"nticks": 4, "rangemode": "tozero", "tickformat": ",d"},
    }
    return {"data": data, "layout": layout}
