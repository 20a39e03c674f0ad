"""Pages of what a tenant's calls cost: the month, the ledger's rows, receipts."""

from __future__ import annotations

from datetime import date, timedelta

from django.core.paginator import Paginator
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from attestation import keyring, receipts, verdicts
from attestation.signing import VerificationError
from tenants import access, charts, costs, ledger
from tenants.models import Tenant

PAGE = 25
MONTHS = 3  # how many months back the cost page offers


def usage(request: access.Request) -> HttpResponse:
    """What a month cost: figures, days, models, and the ledger's rows themselves."""
    tenant: Tenant = request.tenant
    months = _months(timezone.now().astimezone(UTC).date())
    first = next((month for month in months if f"{month:%Y%m}" == request.GET.get("month")), months[0])
    month = f"{first:%Y%m}"
    rows = tenant.usage.in_month(month).select_related("key")
    by_day, today = costs.by_day(tenant, month), timezone.now().astimezone(UTC).date()
    last = min(today, _next_month(first) - timedelta(1))
    context = {
        "months": months,
        "first": first,
        "month": costs.month(tenant, month),
        "models": costs.by_model(tenant, month),
        "days": by_day,
        "dearest": max(by_day, key=lambda day: day["spent"], default=None),
        "figure": charts.days(by_day, first, last, _("spent")),
        "page": Paginator(rows, PAGE).get_page(request.GET.get("page")),
    }
    return render(request, "tenants/usage.html", context)


def _months(today: date) -> list[date]:
    """The first days of this month and of those before it, newest first."""
    found = [today.replace(day=1)]
    while len(found) < MONTHS:
        found.append((found[-1] - timedelta(1)).replace(day=1))
    return found


def _next_month(first: date) -> date:
    return (first + timedelta(32)).replace(day=1)


def receipt(request: access.Request, request_id: str) -> HttpResponse:
    """One ledger row with its proof, checked here and now."""
    row = request.tenant.usage.select_related("key", "batch__statement__key").filter(request_id=request_id).first()
    if row is None:
        raise Http404
    proof = ledger.receipt(request.tenant, request_id)
    try:
        verified, verdict = True, verdicts.receipt_approval(receipts.verify(proof, keyring.public_keys()))
    except VerificationError as error:
        verified, verdict = False, verdicts.refusal(error)
    context = {"row": row, "proof": proof, "verified": verified, "verdict": verdict}
    return render(request, "tenants/receipt.html", context)


def receipt_file(request: access.Request, request_id: str) -> HttpResponse:
    """The receipt for checking elsewhere: `manage.py verify FILE`."""
    try:
        proof = ledger.receipt(request.tenant, request_id)
    except ledger.NoSuchRow as error:
        raise Http404 from error
    return JsonResponse(proof, headers={"Content-Disposition": f'attachment; filename="{request_id}.json"'})
