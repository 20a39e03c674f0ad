"""The page of the audit log, newest first. A page ends at an entry, not at a number: none costs more than another."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import render

from tenants import access
from tenants.models import AuditEntry

PAGE = 25
DIGITS = 18  # of an entry's number at most


def audit(request: access.Request) -> HttpResponse:
    """`action` shows one kind of change (`key.create`), `after` what is older than that entry."""
    rows = AuditEntry.objects.filter(tenant=request.tenant).select_related("actor").order_by("-id")
    action, after = request.GET.get("action", ""), request.GET.get("after", "")
    if action:
        rows = rows.filter(action=action)
    paged = after.isascii() and after.isdigit() and len(after) <= DIGITS
    if paged:
        rows = rows.filter(id__lt=int(after))
    found = list(rows[: PAGE + 1])
    context = {
        "entries": found[:PAGE],
        "after": found[PAGE - 1].pk if len(found) > PAGE else "",
        "paged": paged,
        "action": action,
    }
    return render(request, "tenants/audit.html", context)
