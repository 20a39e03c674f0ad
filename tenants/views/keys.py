"""Pages of API keys: the list, one key, creating, rotating, revoking. A key's text is shown in one answer, once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.apps import apps
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Case, F, Q, Sum, When
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from tenants import access, costs, forms, gauges, keys, limits
from tenants.models import APIKey, Quota, Tenant, UsageDay
from tenants.problems import Refused

PAGE = 25
SOON = timedelta(days=7)  # before its end a key counts as ending


def settings(request: access.Request) -> HttpResponse:
    """The keys, those that are over last; playground keys that are over are not listed."""
    now = timezone.now()
    over = Case(When(Q(revoked_at__lte=now) | Q(expires_at__lte=now), then=1), default=0)
    rows = request.tenant.api_keys.lasting().select_related("created_by", "quota").order_by(over, "-created_at")
    page = Paginator(rows, PAGE).get_page(request.GET.get("page"))
    context = {
        "page": page,
        "keys": [(key, state(key), _rotates(request, key)) for key in page],
        "rotation": forms.Rotation(),
    }
    return render(request, "tenants/settings.html", context | _calling(request))


def state(key: APIKey) -> str:
    """live, ending (within a week), grace (replaced, still works), expired or revoked."""
    now = timezone.now()
    if key.revoked_at:
        return "grace" if key.revoked_at > now else "revoked"
    if key.expires_at and key.expires_at <= now:
        return "expired"
    return "ending" if key.expires_at and key.expires_at <= now + SOON else "live"


def _rotates(request: access.Request, key: APIKey) -> bool:
    return not key.playground and access.grants(request.role, key.scopes)


def models_of(tenant: Tenant) -> list[str]:
    """Every name that a key of the tenant may be allowed: aliases, loaded adapters, base models."""
    bases = apps.get_model("inference", "BaseModel").objects.values_list("name", flat=True)  # the floor above
    adapters = sorted(map(str, tenant.adapters.filter(state="loaded")))
    return list(dict.fromkeys([*tenant.aliases.values_list("name", flat=True), *adapters, *bases]))


def _calling(request: access.Request, key: APIKey | None = None) -> dict[str, Any]:
    """What the snippets name: this server, and a model that answers the key."""
    allowed = key.allowed_models if key else []
    names = allowed or models_of(request.tenant)
    return {
        "base_url": request.build_absolute_uri("/v1"),
        "api_url": request.build_absolute_uri(f"/api/v1/t/{request.tenant.slug}/"),
        "model": names[0] if names else "",
    }


@never_cache
@access.requires("keys")
def key_create(request: access.Request) -> HttpResponse:
    """The form; a valid one creates the key and shows its text in this answer."""
    names, zone = models_of(request.tenant), ZoneInfo(request.tenant.time_zone)
    form = forms.NewKey(request.POST or None, role=request.role, models=names, zone=zone)
    if form.is_valid():
        try:
            return _fresh(request, *_create(request, form))
        except Refused as error:
            forms.explain(form, error)
    status = 422 if request.method == "POST" else 200
    return render(request, "tenants/key_create.html", {"form": form, "has_models": names}, status=status)


@transaction.atomic
def _create(request: access.Request, form: forms.NewKey) -> tuple[APIKey, str]:
    """The key and its limits, or neither."""
    given = form.cleaned_data
    key, text = keys.create(
        request.tenant,
        given["name"],
        request.user,
        sorted(given["scopes"]),
        allowed_models=given["allowed_models"],
        expires_at=given["expires_at"],
        default_max_tokens=given["default_max_tokens"],
    )
    wanted = {name: limit for name, limit in form.limits().items() if limit is not None}
    if wanted:
        limits.set_quota(request.tenant, request.user, key=key, **wanted)
    return key, text


def _fresh(request: access.Request, key: APIKey, text: str) -> HttpResponse:
    """The one answer that shows a key's text."""
    replaced = APIKey.objects.filter(pk=key.rotated_from_id).first() if key.rotated_from_id else None
    until = replaced.revoked_at if replaced and replaced.revoked_at and replaced.revoked_at > timezone.now() else None
    context = {"key": key, "secret": text, "until": until}
    return render(request, "tenants/key_fresh.html", context | _calling(request, key))


def key(request: access.Request, key_id: str) -> HttpResponse:
    """One key: what it may, its limits with what is used of them, and what it cost this month."""
    found = _key(request, key_id)
    if request.htmx:
        return render(request, "tenants/_levels.html", _levels(request.tenant, found))
    quota = Quota.objects.filter(tenant=request.tenant, key=found).first()
    return _key_page(request, found, forms.Limits(quota=quota))


def _key_page(request: access.Request, key: APIKey, form: forms.Limits, status: int = 200) -> HttpResponse:
    context = {
        "key": key,
        "state": state(key),
        "form": form,
        "used": _used(request.tenant, key),
        "rotation": forms.Rotation(),
        "rotates": _rotates(request, key),
    }
    context |= _calling(request, key) | _levels(request.tenant, key)
    return render(request, "tenants/key.html", context, status=status)


def _levels(tenant: Tenant, key: APIKey) -> dict[str, Any]:
    """What the live part of the page needs: the key's own limits."""
    return {
        "reading": gauges.read(tenant, key),
        "refused": gauges.refused(tenant, key),
        "poll": reverse("key", args=[tenant.slug, key.pk]),
        "money": False,
    }


def _used(tenant: Tenant, key: APIKey) -> dict[str, Any]:
    """{spent, calls, tokens, models: dearest first} of this month, from the daily sums."""
    first, after = costs.bounds(costs.this_month(tenant))
    days = UsageDay.objects.filter(tenant=tenant, key_id=key.pk, day__gte=first, day__lt=after)
    sums = {"spent": Sum("cost_nano"), "n": Sum("calls"), "tokens": Sum(F("input_tokens") + F("output_tokens"))}
    models: list[dict[str, Any]] = [dict(row) for row in days.values("model").annotate(**sums).order_by()]
    models.sort(key=lambda row: (-row["spent"], row["model"]))
    return {name: sum(row[name] for row in models) for name in sums} | {"models": models}


def _key(request: access.Request, key_id: str) -> APIKey:
    rows = APIKey.objects.select_related("created_by", "quota", "successor", "tenant")
    return get_object_or_404(rows, tenant=request.tenant, pk=key_id)


@require_POST
@access.requires("keys")
def key_limits(request: access.Request, key_id: str) -> HttpResponse:
    found = _key(request, key_id)
    if not access.grants(request.role, found.scopes):
        raise PermissionDenied
    form = forms.Limits(request.POST)
    try:
        if not form.is_valid():
            return _key_page(request, found, form, status=422)
        limits.set_quota(request.tenant, request.user, key=found, **form.limits())
    except Refused as error:
        forms.explain(form, error)
        return _key_page(request, found, form, status=422)
    messages.success(request, _("The limits of %(name)s hold from the next call on.") % {"name": found.name})
    return redirect("key", request.tenant.slug, found.pk)


@never_cache
@access.requires("keys")
def key_rotate(request: access.Request, key_id: str) -> HttpResponse:
    """A new text with the same rights; both work until the grace has passed."""
    found = _key(request, key_id)
    if not access.grants(request.role, found.scopes):
        raise PermissionDenied
    form = forms.Rotation(request.POST)
    if request.method != "POST" or not form.is_valid():
        return redirect("key", request.tenant.slug, found.pk)
    try:
        return _fresh(request, *keys.rotate(found, request.user, form.duration()))
    except Refused as error:
        messages.error(request, str(error))
        return redirect("key", request.tenant.slug, found.pk)


@require_POST
@access.requires("keys")
def key_revoke(request: access.Request, key_id: str) -> HttpResponse:
    found = _key(request, key_id)
    keys.revoke(found, request.user)
    messages.success(request, _("%(name)s is revoked. The next call with it is refused.") % {"name": found.name})
    return redirect("settings", request.tenant.slug)
