"""Feedback of callers, kept for the tenant whose calls they were, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Avg, Count, Q, QuerySet
from django.utils import timezone

from inference.models import Feedback
from inference.protocol import feedback
from tenants.models import Tenant, UsageEvent

SPANS = {"24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
LOW = 2  # a score up to which an answer counts as disliked
NEWEST = 500  # of feedback that is told apart by what answered


@dataclass(frozen=True, slots=True)
class Figures:
    """`average` is of the `scored` ones, 1 to 5, None without any; `scores` are counts from 1 to 5."""

    n: int
    scored: int
    average: float | None
    up: int
    down: int
    low: int
    scores: tuple[int, int, int, int, int]

    @property
    def low_share(self) -> float | None:
        return self.low / self.n if self.n else None

    @property
    def by_score(self) -> list[tuple[int, int]]:
        """(score, how many), best first."""
        return list(enumerate(self.scores, 1))[::-1]


def keep(tenant: str, key: str, told: feedback.Feedback, ours: bool) -> bool:
    """Whether it was kept; `ours` says that the call is the tenant's though the ledger may not have it yet."""
    if not ours and not UsageEvent.objects.filter(tenant_id=tenant, request_id=told.request_id).exists():
        return False
    said = {"score": told.score or None, "thumbs": told.thumbs, "comment": told.comment}
    Feedback.objects.update_or_create(tenant_id=tenant, request_id=told.request_id, key_id=key, defaults=said)
    return True


def since(tenant: Tenant, span: timedelta) -> QuerySet[Feedback]:
    """What was said in the last `span`, newest first."""
    return Feedback.objects.filter(tenant=tenant, at__gte=timezone.now() - span).select_related("key")


def low(rows: QuerySet[Feedback]) -> QuerySet[Feedback]:
    """Those that disliked the answer."""
    return rows.filter(_disliked())


def figures(rows: QuerySet[Feedback]) -> Figures:
    """One query."""
    counted = {f"n{score}": Count("pk", filter=Q(score=score)) for score in range(1, 6)}
    thumbs = {name: Count("pk", filter=Q(thumbs=name)) for name in Feedback.Thumbs.values}
    found: dict[str, Any] = rows.order_by().aggregate(
        n=Count("pk"), scored=Count("score"), average=Avg("score"), low=Count("pk", filter=_disliked()),
        **counted, **thumbs,
    )  # fmt: skip
    one, two, three, four, five = (found.pop(name) for name in counted)
    return Figures(**found, scores=(one, two, three, four, five))


def by_answer(tenant: Tenant, rows: QuerySet[Feedback]) -> list[dict[str, Any]]:
    """[{served, adapter_digest, n, average, low}] of the newest NEWEST, most often judged first. Two queries."""
    said = list(rows[:NEWEST])
    calls = calls_of(tenant, [each.request_id for each in said])
    found: dict[tuple[str, str], list[Feedback]] = {}
    for each in said:
        if call := calls.get(each.request_id):
            found.setdefault((call.served, call.adapter_digest), []).append(each)
    lines = [
        {"served": served, "adapter_digest": digest, "n": len(each), "average": _mean(each), "low": _count_low(each)}
        for (served, digest), each in found.items()
    ]
    return sorted(lines, key=lambda line: (-line["n"], line["served"]))


def calls_of(tenant: Tenant, request_ids: Sequence[str]) -> dict[str, UsageEvent]:
    """The ledger's rows of these calls, by request id; one query."""
    rows = tenant.usage.filter(request_id__in=set(request_ids), source=UsageEvent.Source.GATEWAY).order_by()
    return {row.request_id: row for row in rows}


def _disliked() -> Q:
    return Q(score__lte=LOW) | Q(thumbs=Feedback.Thumbs.DOWN)


def _count_low(said: Sequence[Feedback]) -> int:
    return sum((each.score or LOW + 1) <= LOW or each.thumbs == Feedback.Thumbs.DOWN for each in said)


def _mean(said: Sequence[Feedback]) -> float | None:
    scores = [each.score for each in said if each.score is not None]
    return sum(scores) / len(scores) if scores else None
