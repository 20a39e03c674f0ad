"""REST of usage rows and receipts."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from django.db.models import Max, Min, Q, QuerySet
from django.http import Http404
from rest_framework import serializers
from rest_framework.response import Response

from tenants import ledger
from tenants.models import Tenant, UsageDay, UsageEvent
from tenants.rest import Dollars, endpoint, page, valid

NEWEST = ("-occurred_at", "-id")


class UsageSerializer(serializers.ModelSerializer[UsageEvent]):
    """A usage row, or a correction (`source` adjustment) of the row with the same request id, in differences."""

    cost = Dollars(source="cost_nano", help_text="dollars, exact")

    class Meta:
        model = UsageEvent
        exclude = ["id", "tenant", "batch", "position", "corrects", "cost_nano"]


class Wanted(serializers.Serializer[Any]):
    day = serializers.DateField(required=False, help_text="in the tenant's time zone")
    key = serializers.CharField(max_length=16, required=False)
    model = serializers.CharField(max_length=120, required=False, help_text="as it was asked for")


@endpoint(["GET"], read="usage", lists=UsageSerializer, query=Wanted)
def usage(request: Any) -> Response:
    """Ledger rows, newest first; `?day=`, `?key=`, `?model=` leave only some."""
    return page(request, chosen(request.tenant, valid(Wanted, request.query_params)), UsageSerializer, NEWEST)


def chosen(tenant: Tenant, wanted: dict[str, Any]) -> QuerySet[UsageEvent]:
    """The tenant's rows of a day, key or model. The daily sums say where to look, so that no search reads it all."""
    rows = tenant.usage.all()
    if not wanted:
        return rows
    names = {"day": "day", "key": "key_id", "model": "model"}
    match = Q(**{names[name]: value for name, value in wanted.items()})
    days = UsageDay.objects.filter(match, tenant=tenant).aggregate(first=Min("day"), last=Max("day"))
    if days["first"] is None:
        return rows.none()
    return _within(rows.filter(match), days)


def _within(rows: QuerySet[UsageEvent], days: dict[str, date]) -> QuerySet[UsageEvent]:
    """Rows of those days, by the instants that the index knows; no time zone is a whole day off."""
    first, last = days["first"] - timedelta(days=1), days["last"] + timedelta(days=2)
    return rows.filter(occurred_at__gte=f"{first}T00:00:00Z", occurred_at__lt=f"{last}T00:00:00Z")


@endpoint(["GET"], read="usage")
def receipt(request: Any, request_id: str) -> Response:
    """A ledger row with what proves it: `manage.py verify` checks it offline."""
    if not request.tenant.usage.filter(request_id=request_id).exists():
        raise Http404
    return Response(ledger.receipt(request.tenant, request_id))
