"""Pages that hand usage on: CSV of rows, FOCUS, the monthly statement, and an operator's look across tenants."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render

from tenants import access, costs
from tenants.costs import exports, savings, statements
from tenants.models import LedgerProof, Tenant
from tenants.refusals import wording
from tenants.views import cost

CORRECTIONS = 20  # on the page; the files hold them all


def usage_csv(request: access.Request) -> HttpResponseBase:
    """The rows of the month, day and key that the ledger page shows, as a file."""
    tenant: Tenant = request.tenant
    month = cost.picked(request, tenant)
    (first, next_), day = costs.bounds(month), cost.parsed_day(request.GET.get("day", ""))
    span = (day, day + timedelta(1)) if day and first <= day < next_ else (first, next_)
    pieces = exports.usage(tenant, *span, request.GET.get("key", "")[:16], bom=request.GET.get("bom") != "0")
    return stream(request, pieces, f"usage-{tenant.slug}-{span[0]:%Y%m%d}.csv")


def usage_focus(request: access.Request) -> HttpResponseBase:
    """The month in the columns of FOCUS 1.2."""
    month = cost.picked(request, request.tenant)
    pieces = exports.focus(request.tenant, *costs.bounds(month), bom=request.GET.get("bom") == "1")
    return stream(request, pieces, f"focus-{request.tenant.slug}-{month}.csv")


def statement(request: access.Request) -> HttpResponse:
    """The monthly statement, for reading and printing."""
    tenant: Tenant = request.tenant
    month = cost.picked(request, tenant)
    months = costs.months(tenant)
    found = statements.of(tenant, month, months.get(month, {"corrected": None})["corrected"])
    context = cost.picker(tenant, months, month) | {
        "statement": found,
        "by_model": [(row, row["model"], row["served"]) for row in found.parts["by_model"]],
        "by_key": [(row, row["name"], row["key_id"]) for row in found.parts["by_key"]],
        "corrections": found.corrections[:CORRECTIONS],
        "refused": [(wording.LIMITS.get(row["limit"], row["limit"]), row["calls"]) for row in found.refused],
        "more_corrections": len(found.corrections) > CORRECTIONS,
    }
    return render(request, "tenants/statement.html", context)


def statement_file(request: access.Request, month: str, kind: str) -> HttpResponse:
    """The statement as `csv` or `json`."""
    try:
        found = statements.of(request.tenant, month)
    except costs.NoSuchMonth as error:
        raise Http404 from error
    headers = {"Content-Disposition": f'attachment; filename="statement-{request.tenant.slug}-{month}.{kind}"'}
    if kind == "json":
        return JsonResponse(found.plain(), headers=headers, json_dumps_params={"ensure_ascii": False, "indent": 1})
    return HttpResponse("".join(statements.table(found, bom=True)), "text/csv; charset=utf-8", headers=headers)


def usage_tenants(request: access.Request) -> HttpResponse:
    """What each tenant spent in a month, and whether the ledger is proved. For operators; nobody else finds it."""
    if not request.user.is_superuser:
        raise Http404
    month = cost.picked(request, request.tenant)
    found = costs.by_tenant(month)
    total = {name: sum(row[name] for row in found) for name in costs.NOTHING}
    price = savings.default(savings.references())
    proof = LedgerProof.objects.first()
    context = cost.picker(request.tenant, [], month) | {
        "lines": found,
        "total": total,
        "saving": savings.of(total, price) if price else None,
        "proof": proof,
        "passed": costs.passed(request.tenant, month),
    }
    return render(request, "tenants/usage_tenants.html", context)


def stream(request: Any, pieces: Iterator[str], name: str) -> HttpResponseBase:
    """A file that is sent while it is read, under ASGI and WSGI alike."""
    body: Any = exports.in_thread(pieces) if isinstance(request, ASGIRequest) else pieces
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(body, content_type="text/csv; charset=utf-8", headers=headers)
