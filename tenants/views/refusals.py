"""Pages of refused calls: how many each limit refused, and why one of them was."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from tenants import access
from tenants import refusals as refusing
from tenants.decisions import NotADecision
from tenants.models import APIKey
from tenants.refusals import tally, wording


def refusals(request: access.Request) -> HttpResponse:
    """Counts of the last day or hour; `?id=` looks one up."""
    text = request.GET.get("id", "").strip()
    problem: NotADecision | None = None
    if text:
        try:
            return redirect("refusal", request.tenant.slug, refusing.explain(request.tenant, text).text)
        except NotADecision as error:
            problem = error
    context = _counts(request) | {"id": text, "problem": problem}
    return render(request, "tenants/refusals.html", context, status=422 if problem else 200)


def _counts(request: access.Request) -> dict[str, Any]:
    spans = tally.SPANS
    counted = tally.counts(request.tenant, spans.get(request.GET.get("span", "day"), spans["day"]))
    words = {limit: str(wording.LIMITS[limit]) for limit in counted.limits}
    return {
        "counts": counted,
        "words": words,
        "figure": tally.figure(counted, words, ZoneInfo(request.tenant.time_zone)),
        "bars": [(start, sum(calls.values()), calls) for start, calls in reversed(counted.bars) if calls],
    }


def refusal(request: access.Request, decision: str) -> HttpResponse:
    """Why one call was refused, and what would have admitted it; 404 for what is no decision about this tenant."""
    try:
        found = refusing.explain(request.tenant, decision)
    except NotADecision as error:
        raise Http404 from error
    places = {"tenant": reverse("limits", args=[request.tenant.slug])} if access.can(request.role, "own") else {}
    known = APIKey.objects.filter(tenant=request.tenant, pk=found.decision.key).exists()
    if known and access.can(request.role, "keys"):
        places["key"] = reverse("key", args=[request.tenant.slug, found.decision.key])
    return render(request, "tenants/refusal.html", {"found": found, "places": places, "id": found.text})
