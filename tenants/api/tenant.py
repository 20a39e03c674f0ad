"""REST of the tenant itself."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response

from tenants import costs
from tenants.models import Tenant
from tenants.rest import endpoint


@endpoint(["GET"])
def tenant(request: Any) -> Response:
    """The tenant, its limits, and the month so far."""
    found: Tenant = request.tenant
    return Response({"slug": found.slug, "name": found.name, "status": found.status, "month": costs.month(found)})
