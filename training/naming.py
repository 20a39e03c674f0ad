"""Names of runs: rlaif-0001, dpo-0002, ... counted per tenant."""

from __future__ import annotations

from django.db.models import Max, Model

from tenants.models import Tenant


def next_name(tenant: Tenant, model: type[Model], prefix: str) -> str:
    """The next free name of `model` in `tenant`; call it inside a transaction, which holds the tenant's row."""
    Tenant.objects.select_for_update().get(pk=tenant.pk)
    newest = model._default_manager.filter(tenant=tenant).aggregate(newest=Max("name"))["newest"]
    return f"{prefix}-{int(newest.rpartition('-')[2]) + 1 if newest else 1:04d}"
