"""What a tenant's calls did lately: how many, how quick, how they ended, who answered. Counted from ledger rows.

Rule: a look is bounded. It reads the rows of a span, at most the newest MOST of them, and says since when. What is in
no row is not here; of refused calls there are counts (`refusals.tally`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import exp
from typing import Any

from django.db.models import CharField, Count, F, FloatField, Max, Q, QuerySet, Sum, Value
from django.db.models.functions import Cast, Floor, Greatest, Ln, TruncHour, TruncMinute
from django.utils import timezone

from tenants.models import RefusalCount, Tenant, UsageEvent
from tenants.refusals.tally import Span

MOST = 200_000  # rows that one look reads
FINE = 100  # buckets of a time in each factor of e: neighbours are 1 % apart, and below 100 ms each has its own
SPANS = {
    span.name: span
    for span in (
        Span("15m", timedelta(minutes=1), 15),
        Span("1h", timedelta(minutes=1), 60),
        Span("24h", timedelta(hours=1), 24),
    )
}
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds that half, 95 % and 99 % of `n` calls stayed below, to 1 %."""

    n: int
    p50: int
    p95: int
    p99: int


@dataclass(slots=True)
class Bar:
    """One stretch of a span. `broken` calls were aborted or are known by an estimate only; `refused` are in no row."""

    start: datetime
    settled: int = 0
    blocked: int = 0
    broken: int = 0
    refused: int = 0
    latency: Times | None = None
    first: Times | None = None

    @property
    def calls(self) -> int:
        return self.settled + self.blocked + self.broken


@dataclass(slots=True)
class Answering:
    """What was asked for and what answered. `replicas` are the engines' names, as far as rows have them."""

    model: str
    served: str
    adapter_digest: str
    calls: int = 0
    unsettled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    last: datetime | None = None
    replicas: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Traffic:
    """`since` is where the rows begin that were read; `cut` says that the span has more. `ends` and `refused` count
    calls by (status, reason) and by limit; `latency` and `first` are of answered calls, `first` of streamed ones;
    `last_minute` are booked calls that were admitted in the last 60 seconds.
    """

    span: Span
    since: datetime
    cut: bool
    bars: list[Bar]
    latency: Times | None
    first: Times | None
    answering: list[Answering]
    ends: dict[tuple[str, str], int]
    refused: dict[str, int]
    last_minute: int = 0

    @property
    def calls(self) -> int:
        return sum(self.ends.values())

    @property
    def broken(self) -> int:
        return sum(n for (status, _), n in self.ends.items() if status in ("aborted", "estimated"))

    @property
    def blocked(self) -> int:
        return sum(n for (status, _), n in self.ends.items() if status == "blocked")

    @property
    def all_refused(self) -> int:
        return sum(self.refused.values())

    @property
    def unanswered(self) -> int:
        return self.broken + self.blocked + self.all_refused

    @property
    def busiest(self) -> Bar:
        return max(self.bars, key=lambda bar: bar.calls)

    @property
    def per_minute(self) -> float:
        """Booked calls a minute on average, over what was read."""
        return self.calls / max((timezone.now() - self.since) / timedelta(minutes=1), 1 / 60)


def look(tenant: Tenant, span: Span) -> Traffic:
    """Four queries: how far back, how calls ended and who answered, how long they took, what was refused."""
    starts = span.starts(timezone.now().astimezone(UTC))
    since, cut = _far_enough(tenant, starts[0])
    rows = tenant.usage.filter(source=UsageEvent.Source.GATEWAY, occurred_at__gte=since).order_by()
    bars = {start: Bar(start) for start in starts if start + span.step > since}
    found = Traffic(span, since, cut, [], None, None, [], {}, {})
    _ends(rows, span, bars, found)
    _times(rows, span, bars, found)
    _refused(tenant, span, bars, found)
    found.bars = [bars[start] for start in sorted(bars)]
    return found


def ended(tenant: Tenant, span: timedelta) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
    """Calls of the last `span` by (status, reason), and refused ones by limit. Three queries."""
    since, _cut = _far_enough(tenant, start := timezone.now() - span)
    rows = tenant.usage.filter(source=UsageEvent.Source.GATEWAY, occurred_at__gte=since).order_by()
    ends: Any = rows.values_list("status", "reason").annotate(n=Count("pk"))
    refused: Any = RefusalCount.objects.filter(tenant=tenant, minute__gte=start).values_list("limit")
    return {(status, reason): n for status, reason, n in ends}, dict(refused.annotate(n=Sum("count")).order_by())


def _far_enough(tenant: Tenant, start: datetime) -> tuple[datetime, bool]:
    """Where to begin so that at most MOST rows are read, and whether that is later than `start`."""
    rows = tenant.usage.filter(occurred_at__gte=start).order_by("-occurred_at", "-id")
    last = rows.values_list("occurred_at", flat=True)[MOST : MOST + 1]
    return next(((at + timedelta(microseconds=1), True) for at in last), (start, False))


def _start(span: Span, column: str) -> Any:
    """The start of a row's bar."""
    return (TruncHour if span.step >= timedelta(hours=1) else TruncMinute)(column, tzinfo=UTC)


def _ends(rows: QuerySet[UsageEvent], span: Span, bars: dict[datetime, Bar], found: Traffic) -> None:
    by = ("status", "reason", "model", "served", "adapter_digest", "engine")
    sums = {
        "n": Count("pk"),
        "input_": Sum("input_tokens"),
        "output_": Sum("output_tokens"),
        "last": Max("occurred_at"),
        "fresh": Count("pk", filter=Q(occurred_at__gte=timezone.now() - timedelta(minutes=1))),
    }
    ends: Counter[tuple[str, str]] = Counter()
    answering: dict[tuple[str, str, str], Answering] = {}
    grouped: Any = rows.annotate(bar=_start(span, "occurred_at")).values("bar", *by).annotate(**sums)
    for row in grouped:
        status, n = row["status"], row["n"]
        bar = bars.setdefault(row["bar"], Bar(row["bar"]))
        name = status if status in ("settled", "blocked") else "broken"
        setattr(bar, name, getattr(bar, name) + n)
        ends[status, row["reason"]] += n
        found.last_minute += row["fresh"]
        place = row["model"], row["served"], row["adapter_digest"]
        one = answering.setdefault(place, Answering(*place))
        one.calls += n
        one.unsettled += n if status != "settled" else 0
        one.input_tokens += row["input_"]
        one.output_tokens += row["output_"]
        one.last = max(one.last or row["last"], row["last"])
        one.replicas |= {row["engine"]} - {""}
    found.ends = dict(ends.most_common())
    found.answering = sorted(answering.values(), key=lambda one: (-one.calls, one.model, one.served))


def _times(rows: QuerySet[UsageEvent], span: Span, bars: dict[datetime, Bar], found: Traffic) -> None:
    """Histograms of both times by bar, in one query."""
    settled = rows.filter(status=UsageEvent.Status.SETTLED).annotate(bar=_start(span, "occurred_at"))

    def histogram(column: str) -> QuerySet[UsageEvent, Any]:
        bucket = Floor(Ln(Cast(Greatest(F(column), 1), FloatField())) * FINE)
        named = settled.annotate(kind=Value(column, CharField()), bucket=bucket)
        return named.values_list("kind", "bar", "bucket").annotate(n=Count("pk"))

    first = histogram("ttft_ms").filter(ttft_ms__gt=0)
    whole: dict[str, Counter[int]] = {"latency_ms": Counter(), "ttft_ms": Counter()}
    by_bar: dict[tuple[str, datetime], Counter[int]] = {}
    for kind, start, bucket, n in histogram("latency_ms").union(first, all=True):
        whole[kind][int(bucket)] += n
        by_bar.setdefault((kind, start), Counter())[int(bucket)] += n
    found.latency, found.first = times(whole["latency_ms"]), times(whole["ttft_ms"])
    for (kind, start), counted in by_bar.items():
        bar = bars.setdefault(start, Bar(start))
        setattr(bar, "latency" if kind == "latency_ms" else "first", times(counted))


def times(buckets: dict[int, int]) -> Times | None:
    """The quantiles of a histogram by the nearest rank; None of an empty one."""
    n = sum(buckets.values())
    return Times(n, *_quantiles(sorted(buckets.items()), n)) if n else None


def _quantiles(buckets: Sequence[tuple[int, int]], n: int) -> Iterable[int]:
    for quantile in QUANTILES:
        seen, rank = 0, -(-n * round(quantile * 100) // 100)
        for bucket, count in buckets:
            seen += count
            if seen >= rank:
                yield round(exp((bucket + 0.5) / FINE))
                break


def _refused(tenant: Tenant, span: Span, bars: dict[datetime, Bar], found: Traffic) -> None:
    rows = RefusalCount.objects.filter(tenant=tenant, minute__gte=min(bars, default=found.since))
    by_limit: Counter[str] = Counter()
    grouped = rows.values_list(_start(span, "minute"), "limit").annotate(n=Sum("count")).order_by()
    for start, limit, n in grouped:
        bars.setdefault(start, Bar(start)).refused += n
        by_limit[limit] += n
    found.refused = dict(by_limit.most_common())
