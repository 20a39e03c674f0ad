"""A month's spend passes a share of its budget: said once to the tenant's owners and its webhook, at least once each.

`check` makes the rows in the ledger's transaction; `deliver` sends one of them. A row is claimed by compare-and-set
on its attempts and lies fallow until `due_at`, longer than any attempt takes: two workers do not send the same.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import F, Q
from django.utils import timezone

from tenants.models import NANO, Budget, BudgetAlert, UsageMonth
from tenants.notices import mail, webhooks

log = logging.getLogger(__name__)
SHARES = (50, 80, 100)  # percent of the budget
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=2), timedelta(hours=6)
ATTEMPTS = 16  # over some 40 hours
BATCH = 100


def check(spent: Mapping[tuple[str, str], int]) -> None:
    """Rows for the shares that `spent`, by (tenant id, YYYYMM) in nano-dollars, has reached and that have none yet.

    One query, and two more when a share is passed. Of no budget and of a budget of 0 there are no shares. A budget
    that is changed has shares of its own; what was said of the old one is not taken back.
    """
    tenants: set[Any] = {tenant for tenant, _month in spent}
    budgets = dict(Budget.objects.filter(tenant__in=tenants, monthly_nano__gt=0).values_list("tenant", "monthly_nano"))
    reached = []
    for (tenant, month), nano in spent.items():
        budget = next((amount for pk, amount in budgets.items() if str(pk) == tenant), 0)
        passed = [percent for percent in SHARES if budget and nano * 100 >= budget * percent]
        reached += [(tenant, month, percent, nano, budget) for percent in passed]
    if reached:
        _raise(reached)


def exhausted(tenants: Collection[str], at: datetime) -> None:
    """Of these tenants calls were refused for the budget: once 80 % is spent, that is the 100 % alert.

    Admission refuses what a call could cost, so that spend itself stays below the budget.
    """
    which: Any = tenants
    found = Budget.objects.filter(tenant__in=which, monthly_nano__gt=0).select_related("tenant")
    reached = []
    for budget in found:
        month = f"{at.astimezone(ZoneInfo(budget.tenant.time_zone)):%Y%m}"
        row = UsageMonth.objects.filter(tenant=budget.tenant, month=month).first()
        if row and row.cost_nano * 100 >= budget.monthly_nano * SHARES[-2]:
            reached.append((str(budget.tenant_id), month, SHARES[-1], row.cost_nano, budget.monthly_nano))
    if reached:
        _raise(reached)


def _raise(reached: list[tuple[str, str, int, int, int]]) -> None:
    which = Q(tenant__in={tenant for tenant, *_ in reached}, month__in={month for _, month, *_ in reached})
    rows = BudgetAlert.objects.filter(which).values_list("tenant", "month", "percent", "budget_nano")
    told = {(str(tenant), *rest) for tenant, *rest in rows}
    fresh = [
        BudgetAlert(tenant_id=tenant, month=month, percent=percent, spent_nano=nano, budget_nano=budget)
        for tenant, month, percent, nano, budget in reached
        if (tenant, month, percent, budget) not in told
    ]
    if fresh:
        BudgetAlert.objects.bulk_create(fresh, ignore_conflicts=True)


def due() -> list[int]:
    """The alerts whose next attempt has come, oldest first."""
    waiting = BudgetAlert.objects.filter(due_at__lte=timezone.now()).order_by("due_at")
    return list(waiting.values_list("pk", flat=True)[:BATCH])


def deliver(alert_id: int) -> bool:
    """One attempt at what of an alert is not delivered; False if it is not due or another worker has it."""
    now = timezone.now()
    alert = BudgetAlert.objects.select_related("tenant").filter(pk=alert_id, due_at__lte=now).first()
    if alert is None:
        return False
    pause = min(FIRST_PAUSE * 2 ** min(alert.attempts, 16), LONGEST_PAUSE)
    claim = BudgetAlert.objects.filter(pk=alert.pk, attempts=alert.attempts, due_at=alert.due_at)
    if not claim.update(attempts=F("attempts") + 1, due_at=now + pause):
        return False
    problems = [problem for problem in (_mail(alert), _post(alert)) if problem]
    end: dict[str, Any] = {"problem": " ".join(problems)[:300]}
    if not problems or alert.attempts + 1 >= ATTEMPTS:
        end["due_at"] = None
    BudgetAlert.objects.filter(pk=alert.pk).update(**end)
    return True


def _mail(alert: BudgetAlert) -> str:
    """Sends the mail unless it is sent; answers what went wrong."""
    if alert.mailed_at:
        return ""
    try:
        sent = mail.send(alert)
    except (OSError, ValueError) as error:  # smtplib's errors are OSErrors
        log.warning("The mail of alert %s is not sent: %s", alert.pk, error)
        return f"E-mail: {error}."[:150]
    if sent:
        BudgetAlert.objects.filter(pk=alert.pk).update(mailed_at=timezone.now())
    return ""


def _post(alert: BudgetAlert) -> str:
    """Posts to the webhook, if there is one, unless it is posted; answers what went wrong."""
    webhook = webhooks.of(alert.tenant)
    if alert.posted_at or webhook is None:
        return ""
    try:
        webhooks.send(webhook, f"msg_alert_{alert.pk}", payload(alert))
    except webhooks.NotDelivered as error:
        log.warning("Alert %s is not posted: %s", alert.pk, error)
        return f"Webhook: {error}"[:150]
    BudgetAlert.objects.filter(pk=alert.pk).update(posted_at=timezone.now())
    return ""


def payload(alert: BudgetAlert) -> dict[str, Any]:
    """The body of the POST: the same at every attempt. Dollars are decimal strings."""
    data = {
        "tenant": alert.tenant.slug,
        "month": f"{alert.month[:4]}-{alert.month[4:]}",
        "percent": alert.percent,
        "spent_usd": dollars(alert.spent_nano),
        "budget_usd": dollars(alert.budget_nano),
    }
    at = alert.raised_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"type": "budget.alert", "timestamp": at, "data": data}


def dollars(nano: int) -> str:
    return f"{nano // NANO}.{nano % NANO:09d}"
