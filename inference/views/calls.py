"""Pages of single calls: looking for them, one of them with all that is known, and what was found as a file.

No prompt and no answer is here: the ledger holds digests of them and nothing else.
"""

from __future__ import annotations

from datetime import timedelta

from django.db.models import QuerySet
from django.http import Http404, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone

from inference.models import Feedback
from tenants import access, costs, refusals
from tenants.costs import exports
from tenants.decisions import NotADecision
from tenants.models import Tenant, UsageDay, UsageEvent
from tenants.traffic import asking, causes, priced, search
from tenants.views import take

PAGE = 25
NAMES = timedelta(days=30)  # in which a name was used that the fields propose


def calls(request: access.Request) -> HttpResponse:
    """Calls by time, key, model, adapter, status, reason, end user and latency; `?id=` opens one by its id."""
    tenant: Tenant = request.tenant
    text = request.GET.get("id", "").strip()
    if text and (found := _place(tenant, text)):
        return found
    form = asking.Search(request.GET, tenant)
    wanted = form.filters()
    try:
        page = search.find(tenant, wanted, request.GET.get("after", ""), PAGE)
    except search.BadCursor:
        page = search.find(tenant, wanted, size=PAGE)
    names = dict(tenant.api_keys.values_list("pk", "name"))
    context = {
        "form": form,
        "spans": asking.SPAN_WORDS,
        "found": page,
        "rows": [(row, names.get(row.key_id or "", ""), causes.words(row.reason)) for row in page.rows],
        "looked": search.LOOKED,
        "paged": bool(request.GET.get("after")),
        "filtered": any(request.GET.get(name) for name in form.fields),
        "id": text,
        "used": _used_names(tenant),
    }
    return render(request, "inference/calls.html", context, status=422 if form.errors or text else 200)


def _place(tenant: Tenant, text: str) -> HttpResponse | None:
    """Where the page of a request id or of a refusal's id is; None for what names neither here."""
    if text.startswith("dec_"):
        try:
            return redirect("refusal", tenant.slug, refusals.explain(tenant, text).text)
        except NotADecision:
            return None
    known = "\0" not in text and tenant.usage.filter(request_id=text[:40]).exists()
    return redirect("call", tenant.slug, text) if known and len(text) <= 40 else None


def _used_names(tenant: Tenant) -> dict[str, list[str]]:
    """Models and what answered, of the last days: from the daily sums."""
    days = UsageDay.objects.filter(tenant=tenant, day__gte=costs.today(tenant) - NAMES).order_by()
    pairs = set(days.values_list("model", "served").distinct())
    return {"models": sorted({model for model, _ in pairs}), "served": sorted({served for _, served in pairs} - {""})}


def calls_csv(request: access.Request) -> HttpResponseBase:
    """Every call that the page would show, page after page, as a file in the columns of the ledger's."""
    tenant: Tenant = request.tenant
    wanted = asking.Search(request.GET, tenant).filters()
    pieces = exports.of_rows(search.chunks(tenant, wanted), bom=request.GET.get("bom") != "0")
    return take.stream(request, pieces, f"calls-{tenant.slug}-{timezone.now():%Y%m%d-%H%M}.csv")


def call(request: access.Request, request_id: str) -> HttpResponse:
    """One call: its row, how its cost came about, corrections and feedback."""
    row, corrections = of_request(request.tenant, request_id)
    context = {
        "row": row,
        "corrections": corrections,
        "net": row.cost_nano + sum(each.cost_nano for each in corrections),
        "computed": priced.explain(row),
        "cause": None if row.status == UsageEvent.Status.SETTLED else causes.of_row(row.status, row.reason),
        "reason": causes.words(row.reason),
        "opinions": opinions_on(request.tenant, request_id),
    }
    return render(request, "inference/call.html", context)


def of_request(tenant: Tenant, request_id: str) -> tuple[UsageEvent, list[UsageEvent]]:
    """The row of a call and its corrections, oldest first; raises Http404."""
    found = list(
        tenant.usage.select_related("key", "price", "batch").filter(request_id=request_id).order_by("id")
        if "\0" not in request_id
        else ()
    )
    row = next((each for each in found if each.source == UsageEvent.Source.GATEWAY), None)
    if row is None:
        raise Http404
    return row, [each for each in found if each is not row]


def opinions_on(tenant: Tenant, request_id: str) -> QuerySet[Feedback]:
    return Feedback.objects.filter(tenant=tenant, request_id=request_id).select_related("key")
