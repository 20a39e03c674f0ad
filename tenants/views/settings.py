"""Pages of a tenant's settings: keys, members, audit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from tenants import access, costs, forms, keys
from tenants.models import APIKey, Quota, Tenant

PAGE = 25


def settings(request: access.Request) -> HttpResponse:
    return render(request, "tenants/settings.html", _settings(request) | {"form": forms.NewKey(role=request.role)})


def _settings(request: access.Request) -> dict[str, Any]:
    tenant: Tenant = request.tenant
    minute_ago = timezone.now() - timedelta(minutes=1)
    return {
        "keys": [(key, _key_state(key)) for key in tenant.api_keys.select_related("created_by")],
        "quota": Quota.objects.filter(tenant=tenant, key=None).first(),
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
