"""The page of the tenant itself: name, time zone, status, and where its alerts are posted."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from tenants import access, forms, tenancy
from tenants.models import BudgetAlert
from tenants.notices import webhooks
from tenants.problems import Refused

ALERTS = 6  # the newest that the page shows
STATUS = {"suspend": tenancy.suspend, "resume": tenancy.resume, "close": tenancy.close}


def tenant(request: access.Request) -> HttpResponse:
    """The facts; an owner's POST changes them."""
    form = forms.TenantFacts(request.POST or None, tenant=request.tenant)
    if request.method != "POST":
        return page(request, form=form)
    if not access.can(request.role, "own"):
        raise PermissionDenied
    if not form.is_valid() or not _saved(request, form):
        return page(request, form=form, status=422)
    messages.success(request, _("The tenant is changed."))
    return redirect("tenant", request.tenant.slug)


def _saved(request: access.Request, form: forms.TenantFacts) -> bool:
    """All facts, or none and the reason under its field."""
    try:
        with transaction.atomic():
            tenancy.rename(request.tenant, form.cleaned_data["name"], request.user)
            tenancy.set_time_zone(request.tenant, form.cleaned_data["time_zone"], request.user)
            tenancy.keep_answers(request.tenant, form.cleaned_data["keeps_answers"], request.user)
    except Refused as error:
        forms.explain(form, error)
        return False
    return True


def page(request: access.Request, status: int = 200, **shown: Any) -> HttpResponse:
    hook = webhooks.of(request.tenant)
    context = {
        "form": forms.TenantFacts(tenant=request.tenant),
        "hook": hook,
        "hook_form": forms.WebhookAddress(initial={"url": hook.url} if hook else {}),
        "alerts": BudgetAlert.objects.filter(tenant=request.tenant)[:ALERTS],
    }
    return render(request, "tenants/tenant.html", context | shown, status=status)


@require_POST
def tenant_status(request: access.Request) -> HttpResponse:
    """Suspends, resumes or closes; an operator's work."""
    verb = STATUS.get(request.POST.get("verb", ""))
    if not request.user.is_superuser or verb is None:
        raise PermissionDenied
    try:
        changed = verb(request.tenant, request.user)
    except Refused as error:
        messages.error(request, str(error))
        return redirect("tenant", request.tenant.slug)
    words = {"name": changed.name, "status": changed.get_status_display()}
    messages.success(request, _("%(name)s: %(status)s. It holds from the next call on.") % words)
    return redirect("home") if changed.status == changed.Status.CLOSED else redirect("tenant", changed.slug)
