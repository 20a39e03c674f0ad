"""What the shell of every page needs. Counts are lazy: a fragment, which draws no shell, asks for none of them."""

from __future__ import annotations

from typing import Any

from django.db.models import Count
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from inference.models import Rollout
from paramstack_site.templatetags.console import basis
from tenants import access
from tenants.models import Member, Tenant
from training.models import Job, PreferencePair


def shell(request: HttpRequest) -> dict[str, Any]:
    shown = {"theme": _theme(request)}
    tenant = getattr(request, "tenant", None)
    if tenant is None:
        return shown
    role = request.role  # type: ignore[attr-defined]  # set by access.enter()
    return shown | {
        "tenant": tenant,
        "role": role,
        "role_label": Member.Role(role).label,
        "can": {capability: access.can(role, capability) for capability in access.CAPABILITIES},
        "section": request.path.split("/")[3],  # /t/<slug>/<section>/
        "tenants": SimpleLazyObject(lambda: list(Tenant.objects.visible_to(request.user))),  # type: ignore[arg-type]
        "counts": SimpleLazyObject(lambda: _counts(tenant)),
    }


def _theme(request: HttpRequest) -> str:
    user = getattr(request, "user", None)
    chosen = user.theme if user is not None and user.is_authenticated else request.COOKIES.get("theme")
    return chosen if chosen in {"light", "dark"} else "system"


def _counts(tenant: Tenant) -> dict[str, Any]:
    """What waits, runs and is on trial: three queries."""
    active = Job.objects.filter(tenant=tenant, state__in=[Job.State.QUEUED, Job.State.RUNNING])
    by_kind = dict(active.order_by().values_list("kind").annotate(n=Count("pk")))
    canary = Rollout.objects.filter(alias__tenant=tenant, state=Rollout.State.RUNNING).first()
    return {
        "waiting": PreferencePair.objects.filter(tenant=tenant).waiting().count(),
        "rlaif": by_kind.get("rlaif", 0),
        "dpo": by_kind.get("dpo", 0) + by_kind.get("evaluation", 0),
        "canary": basis(canary.weight_bp) if canary else "",
    }
