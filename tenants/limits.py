"""A tenant's limits: how they change. Checking them is admission's work (`metering`)."""

from __future__ import annotations

from django.db import transaction

from tenants import audit, epochs
from tenants.models import Budget, Quota, Tenant, User


@transaction.atomic
def set_quota(tenant: Tenant, requests_per_minute: int, actor: User | None) -> Quota:
    """Holds from the tenant's next call on; 0 stops it."""
    before = Quota.objects.filter(tenant=tenant).values_list("requests_per_minute", flat=True).first()
    quota, _ = Quota.objects.update_or_create(tenant=tenant, defaults={"requests_per_minute": requests_per_minute})
    _note(tenant, actor, "quota.set", before, requests_per_minute)
    return quota


@transaction.atomic
def set_budget(tenant: Tenant, monthly_nano: int, actor: User | None) -> Budget:
    """Nano-dollars a UTC month; holds from the next call on. Raises IntegrityError beyond $9,000,000."""
    before = Budget.objects.filter(tenant=tenant).values_list("monthly_nano", flat=True).first()
    budget, _ = Budget.objects.update_or_create(tenant=tenant, defaults={"monthly_nano": monthly_nano})
    _note(tenant, actor, "budget.set", before, monthly_nano)
    return budget


def _note(tenant: Tenant, actor: User | None, action: str, before: int | None, after: int) -> None:
    audit.record(actor, action, tenant.slug, before, after, tenant)
    epochs.raise_(tenant)
