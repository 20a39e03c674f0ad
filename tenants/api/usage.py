"""REST of usage rows and receipts."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from rest_framework import serializers
from rest_framework.response import Response

from tenants import ledger
from tenants.models import UsageEvent
from tenants.rest import endpoint, page


class UsageSerializer(serializers.ModelSerializer[UsageEvent]):
    class Meta:
        model = UsageEvent
        exclude = ["id", "tenant", "batch", "position"]


@endpoint(["GET"])
def usage(request: Any) -> Response:
    """Ledger rows, newest first."""
    return page(request, request.tenant.usage.all(), UsageSerializer)


@endpoint(["GET"])
def receipt(request: Any, request_id: str) -> Response:
    """A ledger row with what proves it: `manage.py verify` checks it offline."""
    if not request.tenant.usage.filter(request_id=request_id).exists():
        raise Http404
    return Response(ledger.receipt(request.tenant, request_id))
