"""The audit log: who changed what. Append-only; written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tenants.models import APIKey, AuditEntry, Tenant, User

_key: ContextVar[str] = ContextVar("key that acts", default="")


@contextmanager
def acting(key: APIKey | None) -> Iterator[None]:
    """What is recorded inside names `key` as who did it, where there is no person."""
    token = _key.set(key.pk if key else "")
    try:
        yield
    finally:
        _key.reset(token)


def record(
    actor: User | None, action: str, subject: str, before: Any = None, after: Any = None, tenant: Tenant | None = None
) -> AuditEntry:
    """`action` is `noun.verb`; `before` and `after` are JSON values without secrets; nobody at all: the system."""
    return AuditEntry.objects.create(
        tenant=tenant,
        actor=actor,
        key_id="" if actor else _key.get(),
        action=action,
        subject=subject[:160],
        before=before,
        after=after,
    )
