"""What a tenant's calls cost, from the ledger's daily sums. Months (`YYYYMM`) and days are those of its time zone."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import QuerySet, Sum
from django.utils import timezone

from tenants.models import Budget, Tenant, UsageDay

SUMS = {
    "spent": Sum("cost_nano"),
    "calls_": Sum("calls"),
    "input_": Sum("input_tokens"),
    "output_": Sum("output_tokens"),
}


def today(tenant: Tenant, now: datetime | None = None) -> date:
    """The day where the tenant is."""
    return (now or timezone.now()).astimezone(ZoneInfo(tenant.time_zone)).date()


def this_month(tenant: Tenant) -> str:
    return f"{today(tenant):%Y%m}"


def month(tenant: Tenant, month: str | None = None) -> dict[str, int]:
    """{spent, budget (nano-dollars), calls, input_tokens, output_tokens, tokens} of a month; default: this one."""
    figures = _figures(_days(tenant, month or this_month(tenant)).aggregate(**SUMS))
    budget = Budget.objects.filter(tenant=tenant).values_list("monthly_nano", flat=True).first()
    return figures | {"budget": budget or 0, "tokens": figures["input_tokens"] + figures["output_tokens"]}


def by_day(tenant: Tenant, month: str | None = None) -> list[dict[str, Any]]:
    """[{day, spent, calls, input_tokens, output_tokens}], days with calls only, oldest first."""
    rows = _days(tenant, month or this_month(tenant)).values("day").annotate(**SUMS).order_by("day")
    return [{"day": row["day"], **_figures(row)} for row in rows]


def by_model(tenant: Tenant, month: str | None = None) -> list[dict[str, Any]]:
    """[{model, served, adapter_digest, spent, calls, input_tokens, output_tokens}], dearest first."""
    names = ("model", "served", "adapter_digest")
    rows = _days(tenant, month or this_month(tenant)).values(*names).annotate(**SUMS).order_by()
    found = [{**{name: row[name] for name in names}, **_figures(row)} for row in rows]
    return sorted(found, key=lambda row: (-row["spent"], row["model"]))


def _figures(row: dict[str, Any]) -> dict[str, int]:
    return {
        "spent": int(row["spent"] or 0),
        "calls": int(row["calls_"] or 0),
        "input_tokens": int(row["input_"] or 0),
        "output_tokens": int(row["output_"] or 0),
    }


def bounds(month: str) -> tuple[date, date]:
    """The first day of a month and of the one after it."""
    first = date(int(month[:4]), int(month[4:]), 1)
    return first, date(first.year + first.month // 12, first.month % 12 + 1, 1)


def _days(tenant: Tenant, month: str) -> QuerySet[UsageDay]:
    first, next_ = bounds(month)
    return UsageDay.objects.filter(tenant=tenant, day__gte=first, day__lt=next_)
