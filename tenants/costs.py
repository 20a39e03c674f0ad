"""What a tenant's calls cost, from the ledger. Months are UTC months (`YYYYMM`), as budgets are."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from django.db.models import Count, F, Sum
from django.db.models.functions import TruncDay
from django.utils import timezone

from tenants import metering
from tenants.models import Budget, Tenant, UsageEvent, UsageEventQuerySet

SUMS = {
    "spent": Sum("cost_nano"),
    "calls": Count("pk"),
    "input_tokens": Sum(F("input_tokens")),
    "output_tokens": Sum(F("output_tokens")),
}


def this_month() -> str:
    return metering.month_of(timezone.now())


def month(tenant: Tenant, month: str | None = None) -> dict[str, int]:
    """{spent, budget (nano-dollars), calls, input_tokens, output_tokens, tokens} of a month; default: this one."""
    sums = _rows(tenant, month or this_month()).aggregate(**SUMS)
    budget = Budget.objects.filter(tenant=tenant).values_list("monthly_nano", flat=True).first()
    figures = {name: int(value or 0) for name, value in sums.items()}
    tokens = figures["input_tokens"] + figures["output_tokens"]
    return figures | {"budget": budget or 0, "tokens": tokens}


def by_day(tenant: Tenant, month: str | None = None) -> list[dict[str, Any]]:
    """[{day (UTC date), spent, calls, input_tokens, output_tokens}], days with calls only, oldest first."""
    days = _rows(tenant, month or this_month()).annotate(instant=TruncDay("occurred_at", tzinfo=UTC))
    rows: list[dict[str, Any]] = list(map(dict, days.values("instant").annotate(**SUMS).order_by("instant")))
    return [{"day": row.pop("instant").date(), **row} for row in rows]


def by_model(tenant: Tenant, month: str | None = None) -> list[dict[str, Any]]:
    """[{model, served, adapter_digest, spent, calls, input_tokens, output_tokens}], dearest first."""
    rows = _rows(tenant, month or this_month()).values("model", "served", "adapter_digest").annotate(**SUMS)
    return sorted(map(dict, rows), key=lambda row: (-row["spent"], row["model"]))


def _rows(tenant: Tenant, month: str) -> UsageEventQuerySet:
    return UsageEvent.objects.filter(tenant=tenant).in_month(month)
