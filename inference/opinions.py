"""Feedback of callers, kept for the tenant whose calls they were."""

from __future__ import annotations

from inference.models import Feedback
from inference.protocol import feedback
from tenants.models import UsageEvent


def keep(tenant: str, key: str, told: feedback.Feedback, ours: bool) -> bool:
    """Whether it was kept; `ours` says that the call is the tenant's though the ledger may not have it yet."""
    if not ours and not UsageEvent.objects.filter(tenant_id=tenant, request_id=told.request_id).exists():
        return False
    said = {"score": told.score or None, "thumbs": told.thumbs, "comment": told.comment}
    Feedback.objects.update_or_create(tenant_id=tenant, request_id=told.request_id, key_id=key, defaults=said)
    return True
