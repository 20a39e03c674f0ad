"""The pages that belong to no room: start, overview, preferences of the person, errors."""

from __future__ import annotations

import logging
import secrets

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from paramstack_site import books, health, problem_details
from paramstack_site import overview as loop
from paramstack_site import status as standing
from tenants import access, costs
from tenants.models import Tenant
from training.models import Job

YEAR = 365 * 24 * 3600
CHOICES = {"theme": {"light", "dark", "system"}, "language": {"tr", "en"}}
log = logging.getLogger(__name__)


def home(request: HttpRequest) -> HttpResponse:
    """The only tenant's overview, or the choice between several."""
    if not request.user.is_authenticated:
        return redirect("login")
    visible = list(Tenant.objects.visible_to(request.user).exclude(status=Tenant.Status.CLOSED))
    if len(visible) == 1:
        return redirect("overview", visible[0].slug)
    return render(request, "site/tenants.html", {"visible": visible})


def overview(request: access.Request) -> HttpResponse:
    tenant = request.tenant
    state = loop.read(tenant)
    jobs = Job.objects.filter(tenant=tenant).select_related("rlaif_run", "training_run", "evaluation__run")[:6]
    context = {
        "chain": loop.chain(state),
        "step": loop.next_step(state, request.user),
        "jobs": jobs,
        "active": any(job.active for job in jobs),
        "calls": state.calls,
    }
    if request.htmx:
        return render(request, "site/_loop.html", context)
    return render(request, "site/overview.html", context | _beside(tenant))


def status(request: access.Request) -> HttpResponse:
    """Is it me or the engine? The live part alone for htmx."""
    template = "site/_status.html" if request.htmx else "site/status.html"
    return render(request, template, {"found": standing.read(request.tenant)})


def _beside(tenant: Tenant) -> dict[str, object]:
    """What the overview shows beside the loop: money, processes, the books, the last audit entries."""
    processes, month = health.checks(), costs.month(tenant)
    return {
        "month": month,
        "budget_step": books.budget(tenant, month),
        "refused": books.refused(tenant),
        "checks": [*processes, books.proof(), books.engines()],
        "down": [check.name for check in processes if check.kind == "failed"],
        "audit": tenant.audit.select_related("actor")[:6],
    }


@require_POST
def preferences(request: HttpRequest) -> HttpResponse:
    """Theme and language: on the person's row, and in a cookie for the pages before login."""
    target = request.POST.get("next", "/")
    if not url_has_allowed_host_and_scheme(target, {request.get_host()}, request.is_secure()):
        target = "/"
    response = HttpResponseRedirect(target)
    for name, allowed in CHOICES.items():
        value = request.POST.get(name)
        if value not in allowed:
            continue
        if request.user.is_authenticated:
            setattr(request.user, name, value)
            request.user.save(update_fields=[name])
        response.set_cookie(name, value, max_age=YEAR, samesite="Lax", httponly=True, secure=request.is_secure())
    return response


def error(request: HttpRequest) -> HttpResponse:
    """The page of a 500: a number that is also in the log."""
    error_id = secrets.token_hex(4)
    log.error("Error %s at %s", error_id, request.path)
    if request.path.startswith("/api/"):
        return problem_details.broken(error_id)
    return render(request, "500.html", {"error_id": error_id}, status=500)
