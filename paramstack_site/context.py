"""What the shell of every page needs. Counts are lazy: a fragment, which draws no shell, asks for none of them."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
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
    """What waits, runs and is on trial: one query."""
    active = Job.objects.filter(tenant=OuterRef("pk"), state__in=[Job.State.QUEUED, Job.State.RUNNING])
    canaries = Rollout.objects.filter(alias__tenant=OuterRef("pk"), state=Rollout.State.RUNNING)
    found = Tenant.objects.filter(pk=tenant.pk).values(
        waiting=_count(PreferencePair.objects.filter(tenant=OuterRef("pk")).waiting()),
        rlaif=_count(active.filter(kind="rlaif")),
        dpo=_count(active.filter(kind__in=["dpo", "evaluation"])),
        canary=Subquery(canaries.values("weight_bp")[:1]),
    )
    counts: Any = found[0]
    return {**counts, "canary": basis(counts["canary"]) if counts["canary"] is not None else ""}


def _count(rows: QuerySet[Any]) -> Coalesce:
    """How many rows of the tenant there are, as a part of a query about the tenant."""
    return Coalesce(Subquery(rows.order_by().values("tenant").annotate(n=Count("pk")).values("n")), 0)
