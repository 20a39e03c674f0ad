"""Aliases: stable model names of a tenant. Callers keep the name while what answers changes behind it."""

from __future__ import annotations

import secrets

from django.db import transaction

from inference import registry, replicas
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


class UnknownTarget(LookupError):
    def __init__(self, name: str) -> None:
        super().__init__(f"There is no base model and no adapter of yours called {name}.")
        self.name = name


def target(tenant: Tenant, name: str) -> Adapter | BaseModel:
    """The tenant's adapter (`destek-v2`) or else the base model of that name; raises UnknownTarget."""
    adapter, _, version = name.rpartition("-v")
    mine = Adapter.objects.filter(tenant=tenant, name=adapter, version=version) if version.isdecimal() else None
    found = (mine and mine.first()) or BaseModel.objects.filter(name=name).first()
    if found is None:
        raise UnknownTarget(name)
    return found


@transaction.atomic
def set_fallback(alias: Alias, target: Adapter | BaseModel | None, actor: User | None) -> Alias:
    """What answers from the next call on where no engine answers for the alias; None: nobody. Raises NotServable."""
    if isinstance(target, Adapter):
        registry.lock(target)
        _check_mine(alias, target)
    alias.refresh_from_db()
    before, after = (str(one) if one else None for one in (alias.fallback, target))
    alias.fallback_adapter = target if isinstance(target, Adapter) else None
    alias.fallback_base = target if isinstance(target, BaseModel) else None
    alias.save(update_fields=["fallback_adapter", "fallback_base"])
    audit.record(actor, "alias.fallback", f"alias {alias}", {"fallback": before}, {"fallback": after}, alias.tenant)
    epochs.raise_(alias.tenant)
    return alias


def check_servable(alias: Alias, adapter: Adapter) -> None:
    """Raises NotServable unless `adapter` is the tenant's, loaded, and made for the alias's base model."""
    _check_mine(alias, adapter)
    if adapter.base_id != alias.base_id:
        raise NotServable(adapter, f"it was trained on {adapter.base}, the alias stands on {alias.base}.")
    if not replicas.eligible([adapter]):
        raise NotServable(adapter, "no engine answers with it yet. Its page says how far each of them is.")


def _check_mine(alias: Alias, adapter: Adapter) -> None:
    if adapter.tenant_id != alias.tenant_id:
        raise NotServable(adapter, "it is another tenant's.")
    if adapter.state != Adapter.State.LOADED:
        raise NotServable(adapter, "it is not loaded.")


def new_salt() -> str:
    """A new salt deals the callers anew, so that a second canary does not meet the same unlucky few."""
    return secrets.token_hex(8)
