"""Pages of what a tenant's calls cost: the month, the ledger's rows, receipts."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.dateparse import parse_date
from django.utils.translation import gettext as _

from attestation import keyring, receipts, verdicts
from attestation.signing import VerificationError
from tenants import access, costs, ledger
from tenants.costs import charts, forecasts, rows, savings
from tenants.models import LedgerProof, Price, Tenant, UsageEvent

PAGE = 25
MONTHS = 3  # how many months the picker shows as buttons; older ones stand in a list
BY = ("model", "adapter", "key", "end_user", "gpu")


def usage(request: access.Request) -> HttpResponse:
    """What a month cost: figures, days, what is left of the budget, one break-down, the saving."""
    tenant: Tenant = request.tenant
    months = costs.months(tenant)
    month = picked(request, tenant)
    figures = (months.get(month) or costs.month(tenant, month)) | {"budget": costs.budget(tenant)}
    prices = savings.ordered(Price.objects.exclude(kind=Price.Kind.LIST))
    price = _reference(prices, request.GET.get("price", ""))
    context = {
        **picker(tenant, months, month),
        "month": figures,
        "saving": savings.of(figures, price) if price else None,
        "savings": [savings.of(figures, each) for each in prices if each.kind == Price.Kind.REFERENCE],
        "per_million": figures["spent"] * 1_000_000 // figures["tokens"] if figures["tokens"] > 0 else None,
        "proof": LedgerProof.objects.first(),
        **_days(tenant, month, figures),
        **_broken_down(tenant, month, request.GET.get("by", ""), prices, price),
    }
    return render(request, "tenants/usage.html", context)


def picked(request: Any, tenant: Tenant) -> str:
    """The month that the address names, YYYYMM; this one without or with a bad one."""
    try:
        costs.bounds(request.GET.get("month", ""))
    except costs.NoSuchMonth:
        return costs.this_month(tenant)
    return str(request.GET["month"])


def picker(tenant: Tenant, known: Any, month: str) -> dict[str, Any]:
    """What `_cost_head.html` needs: the months to choose from, newest first, and the first and last day shown."""
    offered = sorted({*known, costs.this_month(tenant), month}, reverse=True)
    first, next_ = costs.bounds(month)
    firsts = [costs.bounds(each)[0] for each in offered]
    return {
        "yyyymm": month,
        "first": first,
        "last": min(next_ - timedelta(1), max(first, costs.today(tenant))),
        "months": firsts[:MONTHS],
        "older": firsts[MONTHS:],
    }


def _reference(prices: list[Price], wanted: str) -> Price | None:
    offered = [price for price in prices if price.kind == Price.Kind.REFERENCE]
    return next((price for price in offered if str(price.pk) == wanted), savings.default(offered))


def _days(tenant: Tenant, month: str, figures: dict[str, Any]) -> dict[str, Any]:
    """The days, their chart, and what is left of the budget; this month with its forecast."""
    (first, next_), today = costs.bounds(month), costs.today(tenant)
    current = first <= today < next_
    since = min(first, today - timedelta(forecasts.WINDOW)) if current else first
    known = costs.days(tenant, since, next_)
    shown = [row for row in known if row["day"] >= first]
    ahead = forecasts.of_month(known, costs.now(tenant)) if current else None
    last = max(first, min(today, next_ - timedelta(1)))
    budget = figures["budget"]
    left = costs.running(shown, first, last, budget)
    words = {"spent": _("spent"), "left": _("left"), "forecast": _("forecast"), "even": _("even spending")}
    return {
        "days": shown,
        "dearest": max(shown, key=lambda row: row["spent"], default=None),
        "figure": charts.days(shown, first, last, words["spent"]),
        "current": current,
        "forecast": ahead,
        "verdict": ahead.verdict(budget) if ahead and budget else "",
        "reached": ahead.reaches(budget) if ahead and budget else None,
        "left": left,
        "path": [(each, budget - each.expected) for each in ahead.path] if ahead else [],
        "burn": charts.burn_down(left, next_ - timedelta(1), budget, ahead, words),
    }


def _broken_down(tenant: Tenant, month: str, wanted: str, prices: list[Price], price: Price | None) -> dict[str, Any]:
    """One break-down of the month, each line with what it would have cost at the reference price."""
    by = wanted if wanted in BY else BY[0]
    hosted = {each.pk: each for each in prices if each.kind == Price.Kind.SELF_HOSTED}
    if by == "gpu":
        return {"by": by, "margins": savings.margins(costs.by_price(tenant, month), hosted), "hosted": hosted}
    found = getattr(costs, f"by_{by}")(tenant, month)
    lines = [row | {"saving": savings.of(row, price) if price else None} for row in found]
    return {"by": by, "lines": lines, "hosted": hosted}


def usage_rows(request: access.Request) -> HttpResponse:
    """The ledger's rows of a month or a day, of one key or all, with their corrections."""
    tenant: Tenant = request.tenant
    month = picked(request, tenant)
    (first, next_), day = costs.bounds(month), parsed_day(request.GET.get("day", ""))
    span = (day, day + timedelta(1)) if day and first <= day < next_ else (first, next_)
    keys = {key.pk: key for key in tenant.api_keys.all()}
    key = request.GET.get("key", "")
    try:
        found = rows.page(tenant, *span, key if key in keys else "", request.GET.get("after", ""), PAGE)
    except rows.BadCursor:
        found = rows.page(tenant, *span, key if key in keys else "", size=PAGE)
    for row, corrections in found.rows:
        for each in (row, *corrections):
            each.key = keys.get(each.key_id or "")
    context = picker(tenant, costs.months(tenant), month) | {
        "keys": keys.values(),
        "key": key,
        "day": span[0] if span[1] - span[0] == timedelta(1) else None,
        "next": next_ - timedelta(1),
        "rows": found.rows,
        "after": found.after,
        "paged": bool(request.GET.get("after")),
    }
    return render(request, "tenants/usage_rows.html", context)


def parsed_day(text: str) -> date | None:
    try:
        return parse_date(text)
    except ValueError:
        return None


def receipt(request: access.Request, request_id: str) -> HttpResponse:
    """One ledger row with its proof, checked here and now, and the corrections that name it."""
    found = list(
        request.tenant.usage.select_related("key", "price", "batch__statement__key")
        .filter(request_id=request_id)
        .order_by("id")
    )
    row = next((each for each in found if each.source == UsageEvent.Source.GATEWAY), None)
    if row is None:
        raise Http404
    proof = ledger.receipt(request.tenant, request_id)
    try:
        verified, verdict = True, verdicts.receipt_approval(receipts.verify(proof, keyring.public_keys()))
    except VerificationError as error:
        verified, verdict = False, verdicts.refusal(error)
    corrections = [each for each in found if each is not row]
    net = sum(each.cost_nano for each in found)
    context = {"row": row, "proof": proof, "verified": verified, "verdict": verdict}
    return render(request, "tenants/receipt.html", context | {"corrections": corrections, "net": net})


def receipt_file(request: access.Request, request_id: str) -> HttpResponse:
    """The receipt for checking elsewhere: `manage.py verify FILE`."""
    try:
        proof = ledger.receipt(request.tenant, request_id)
    except ledger.NoSuchRow as error:
        raise Http404 from error
    return JsonResponse(proof, headers={"Content-Disposition": f'attachment; filename="{request_id}.json"'})
