"""Builds the gateway's snapshot of a key from the database: the Django side of `inference.gateway`.

Also seeds what admission compares and counts with (epoch, month's spend), so that a lost Redis heals by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from inference import policies
from inference.gateway.snapshot import Route, Snapshot, Target
from inference.models import Adapter, Alias, BaseModel
from tenants import counters, epochs, ledger, metering, prices
from tenants.models import APIKey, Budget, Quota, Tenant

DEFAULT_MAX_TOKENS = 256
MAX_TOKENS = 4096
ADAPTER_PRICE = "adapter"  # the price book's line for adapters that have none of their own


def load(key_id: str) -> Snapshot | None:
    """The snapshot of a live key of an active tenant, else None. Blocks; raises when database or Redis fail."""
    key = APIKey.objects.live().select_related("tenant").filter(pk=key_id).first()
    if key is None or "inference" not in key.scopes:
        return None
    # The epoch was read first: whatever changes while we read the rest makes this snapshot stale, not wrong.
    tenant = key.tenant
    seed(tenant)
    return Snapshot(
        key_id=key.pk,
        key_salt=key.salt,
        key_digest=key.digest,
        key_expires_at=key.expires_at,
        tenant=str(tenant.pk),
        limits=_limits(tenant),
        policy=policies.current(tenant),
        routes={route.name: route for route in _routes(tenant)},
        default_max_tokens=DEFAULT_MAX_TOKENS,
        max_tokens=MAX_TOKENS,
    )


def seed(tenant: Tenant) -> None:
    """Gives Redis the tenant's epoch, and this month's spend if it has none; raises redis.RedisError."""
    epochs.publish([(str(tenant.pk), tenant.epoch)])
    month = metering.month_of(datetime.now(UTC))
    name = metering.month_key(str(tenant.pk), month)
    client = counters.connect()
    if not client.hexists(name, "spent"):
        client.hsetnx(name, "spent", str(ledger.spent(str(tenant.pk), month)))
        client.expire(name, metering.MONTH_SECONDS)


def _limits(tenant: Tenant) -> metering.Limits:
    """Without a quota the default of a new one; without a budget there is no money."""
    quota = Quota.objects.filter(tenant=tenant).first() or Quota()
    budget = Budget.objects.filter(tenant=tenant).values_list("monthly_nano", flat=True).first()
    return metering.Limits(tenant.epoch, quota.requests_per_minute, budget or 0)


def _routes(tenant: Tenant) -> Iterator[Route]:
    """Later ones win a name: base models, then the tenant's loaded adapters, then its aliases."""
    for base in BaseModel.objects.all():
        yield _route(base.name, base, None)
    loaded = Adapter.objects.filter(tenant=tenant, state=Adapter.State.LOADED).select_related("base", "tenant")
    for adapter in loaded.order_by("created_at"):
        yield _route(str(adapter), adapter.base, adapter)
    aliases = Alias.objects.filter(tenant=tenant)
    for alias in aliases.select_related("base", "champion__base", "challenger__base"):
        yield _alias_route(alias)


def _route(name: str, base: BaseModel, adapter: Adapter | None) -> Route:
    try:
        return Route(name, _target(base, adapter))
    except prices.NoPrice as error:
        return Route(name, None, unpriced=error.model)


def _alias_route(alias: Alias) -> Route:
    try:
        champion = _target(alias.base, alias.champion)
        challenger = _target(alias.base, alias.challenger) if alias.challenger else None
    except prices.NoPrice as error:
        return Route(alias.name, None, unpriced=error.model)
    return Route(alias.name, champion, challenger, alias.challenger_bp, alias.salt, is_alias=True)


def _target(base: BaseModel, adapter: Adapter | None) -> Target:
    names = [f"{adapter.tenant.slug}/{adapter}", ADAPTER_PRICE, base.name] if adapter else [base.name]
    price = prices.first_of(names)
    served, digest = (adapter.engine_name, adapter.digest) if adapter else (base.name, "")
    return Target(served, digest, price.input_nano_per_mtok, price.output_nano_per_mtok)
