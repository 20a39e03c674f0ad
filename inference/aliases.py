"""Aliases: stable model names of a tenant. Callers keep the name while what answers changes behind it."""

from __future__ import annotations

import secrets

from django.db import transaction

from inference import replicas
from inference.models import Adapter, Alias, BaseModel
from tenants import audit, epochs
from tenants.models import Tenant, User


class NotServable(ValueError):
    """An adapter cannot answer for an alias."""

    def __init__(self, adapter: Adapter, reason: str) -> None:
        super().__init__(f"{adapter} cannot answer here: {reason}")
        self.adapter, self.reason = adapter, reason


@transaction.atomic
def create(tenant: Tenant, name: str, base: BaseModel, actor: User | None = None) -> Alias:
    """A name that answers with the base model until a rollout gives it an adapter. Raises IntegrityError if taken."""
    alias = Alias.objects.create(tenant=tenant, name=name, base=base, salt=new_salt())
    audit.record(actor, "alias.create", f"alias {name}", None, {"base": base.name}, tenant)
    epochs.raise_(tenant)
    return alias


def check_servable(alias: Alias, adapter: Adapter) -> None:
    """Raises NotServable unless `adapter` is the tenant's, loaded, and made for the alias's base model."""
    if adapter.tenant_id != alias.tenant_id:
        raise NotServable(adapter, "it is another tenant's.")
    if adapter.base_id != alias.base_id:
        raise NotServable(adapter, f"it was trained on {adapter.base}, the alias stands on {alias.base}.")
    if adapter.state != Adapter.State.LOADED:
        raise NotServable(adapter, "it is not loaded.")
    if not replicas.eligible([adapter]):
        raise NotServable(adapter, "no engine answers with it yet. Its page says how far each of them is.")


def new_salt() -> str:
    """A new salt deals the callers anew, so that a second canary does not meet the same unlucky few."""
    return secrets.token_hex(8)
