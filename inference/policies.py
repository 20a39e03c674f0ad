"""A tenant's guardrail policy, versioned: what is in force, and how a new version comes into force."""

from __future__ import annotations

from functools import lru_cache

from django.db import transaction
from django.db.models import Max

from inference.guardrails import policy
from inference.models import GuardrailPolicy
from tenants import audit, epochs
from tenants.models import Tenant, User

parse = lru_cache(maxsize=256)(policy.parse)


def current(tenant: Tenant) -> policy.Policy:
    """The newest version, or the default. A stored text that does not parse raises PolicyError: nobody is served."""
    stored = GuardrailPolicy.objects.filter(tenant=tenant).order_by("-version").first()
    return parse(stored.text if stored else policy.DEFAULT.read_text())


@transaction.atomic
def save(tenant: Tenant, text: str, user: User | None) -> GuardrailPolicy:
    """A new version, in force from the next call on; raises PolicyError, and then nothing has changed."""
    parsed = policy.parse(text)
    Tenant.objects.select_for_update().get(pk=tenant.pk)  # one version at a time
    newest = GuardrailPolicy.objects.filter(tenant=tenant).aggregate(newest=Max("version"))["newest"] or 0
    row = GuardrailPolicy.objects.create(
        tenant=tenant, version=newest + 1, text=text, digest=parsed.digest, created_by=user
    )
    audit.record(user, "policy.save", f"policy v{row.version}", None, {"digest": row.digest}, tenant)
    epochs.raise_(tenant)
    return row
