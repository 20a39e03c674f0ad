"""Pages of a tenant: keys, members, audit, cost, receipts."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from attestation import keyring, receipts, verdicts
from attestation.signing import VerificationError
from tenants import access, charts, costs, forms, keys, ledger
from tenants.models import APIKey, Quota, Tenant

PAGE = 25
MONTHS = 3  # how many months back the cost page offers


def settings(request: access.Request) -> HttpResponse:
    return render(request, "tenants/settings.html", _settings(request) | {"form": forms.NewKey(role=request.role)})


def _settings(request: access.Request) -> dict[str, Any]:
    tenant: Tenant = request.tenant
    minute_ago = timezone.now() - timedelta(minutes=1)
    return {
        "keys": [(key, _key_state(key)) for key in tenant.api_keys.select_related("created_by")],
        "quota": Quota.objects.filter(tenant=tenant).first(),
        "last_minute": tenant.usage.filter(occurred_at__gte=minute_ago).count(),
        "month": costs.month(tenant),
        "base_url": request.build_absolute_uri("/v1"),
        "model": tenant.aliases.values_list("name", flat=True).first() or "",
    }


def _key_state(key: APIKey) -> str:
    if key.revoked_at:
        return "cancelled"
    return "unknown" if key.expires_at and key.expires_at <= timezone.now() else "live"


@require_POST
@never_cache
@access.requires("keys")
def key_create(request: access.Request) -> HttpResponse:
    """Creates a key and shows its text in this answer, once; it is stored nowhere."""
    form = forms.NewKey(request.POST, role=request.role)
    if not form.is_valid():
        return render(request, "tenants/settings.html", _settings(request) | {"form": form}, status=422)
    key, text = keys.create(
        request.tenant, form.cleaned_data["name"], request.user, scopes=sorted(form.cleaned_data["scopes"])
    )
    fresh = {"form": forms.NewKey(role=request.role), "fresh": key, "secret": text}
    return render(request, "tenants/settings.html", _settings(request) | fresh)


@require_POST
@access.requires("keys")
def key_revoke(request: access.Request, key_id: str) -> HttpResponse:
    key = get_object_or_404(APIKey, tenant=request.tenant, pk=key_id)
    keys.revoke(key, request.user)
    messages.success(request, _("%(name)s is revoked. The next call with it is refused.") % {"name": key.name})
    return redirect("settings", request.tenant.slug)


def members(request: access.Request) -> HttpResponse:
    rows = request.tenant.members.select_related("user").order_by("user__username")
    return render(request, "tenants/members.html", {"members": rows})


def audit(request: access.Request) -> HttpResponse:
    rows = request.tenant.audit.select_related("actor")
    return render(request, "tenants/audit.html", {"page": Paginator(rows, PAGE).get_page(request.GET.get("page"))})


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
