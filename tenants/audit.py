"""The audit log: who changed what. Append-only; written in the transaction of the change itself."""

from __future__ import annotations

from typing import Any

from tenants.models import AuditEntry, Tenant, User


def record(
    actor: User | None, action: str, subject: str, before: Any = None, after: Any = None, tenant: Tenant | None = None
) -> AuditEntry:
    """`action` is `noun.verb`; `before` and `after` are JSON values without secrets; no actor is the system."""
    return AuditEntry.objects.create(
        tenant=tenant, actor=actor, action=action, subject=subject[:160], before=before, after=after
    )
