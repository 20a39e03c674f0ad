"""Pages of what a tenant's calls do: live figures, and what callers thought of the answers."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from inference import opinions, standing
from inference.models import Feedback
from tenants import access, gauges
from tenants import traffic as lately
from tenants.models import Tenant
from tenants.refusals import wording
from tenants.traffic import causes, charts

PAGE = 25
POLLS = {"15m": 5, "1h": 5, "24h": 30}  # seconds


def traffic(request: access.Request) -> HttpResponse:
    """The last 15 minutes, hour or day; the live part alone for htmx."""
    span = lately.SPANS.get(request.GET.get("span", ""), lately.SPANS["15m"])
    template = "inference/_traffic.html" if request.htmx else "inference/traffic.html"
    return render(request, template, _traffic(request.tenant, span))


def _traffic(tenant: Tenant, span: Any) -> dict[str, Any]:
    replicas = standing.of(tenant)
    found, zone = lately.look(tenant, span), ZoneInfo(tenant.time_zone)
    ends = {"settled": _("answered"), "blocked": _("blocked"), "broken": _("not finished"), "refused": _("refused")}
    lines = {"p50": _("latency, median"), "p95": _("latency, 95%"), "first": _("first token, median")}
    errors = [
        (causes.of_row(status, reason), causes.words(reason), status, reason, n)
        for (status, reason), n in found.ends.items()
        if status != "settled"
    ]
    return {
        "traffic": found,
        "span": span.name,
        "poll_s": POLLS[span.name],
        "under_way": gauges.under_way(tenant),
        "errors": errors,
        "refused": [
            (causes.of_limit(limit), wording.LIMITS.get(limit, limit), n) for limit, n in found.refused.items()
        ],
        "replicas": replicas,
        "down": not any(one.is_well for one in replicas),
        "bars": [bar for bar in reversed(found.bars) if bar.calls or bar.refused],
        "calls_figure": charts.calls(found.bars, ends, zone),
        "times_figure": charts.times(found.bars, lines, zone),
    }


def feedback(request: access.Request) -> HttpResponse:
    """What callers said of answers: figures, by what answered, and the list, low scores first of all."""
    tenant: Tenant = request.tenant
    span = request.GET.get("span", "")
    days = opinions.SPANS.get(span, opinions.SPANS["30d"])
    everything = request.GET.get("show") == "all"
    rows = opinions.since(tenant, days)
    listed = rows if everything else opinions.low(rows)
    page = Paginator(listed, PAGE).get_page(request.GET.get("page"))
    answered = opinions.calls_of(tenant, [each.request_id for each in page])
    context = {
        "figures": opinions.figures(rows),
        "by_answer": opinions.by_answer(tenant, rows),
        "page": page,
        "rows": [(each, answered.get(each.request_id)) for each in page],
        "everything": everything,
        "span": span if span in opinions.SPANS else "30d",
        "base_url": request.build_absolute_uri("/v1"),
        "ever": Feedback.objects.filter(tenant=tenant).exists(),
    }
    return render(request, "inference/feedback.html", context)
