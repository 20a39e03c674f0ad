"""Builds the gateway's snapshot of a tenant from the database: the Django side of `inference.gateway`.

A constant number of queries, however many keys, routes and prices a tenant has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from django.utils import timezone

from inference import policies
from inference.gateway.snapshot import NEVER, Key, Route, Target, TenantSnapshot
from inference.models import Adapter, Alias, BaseModel
from inference.replicas import Hosts
from tenants import counters, metering
from tenants.models import APIKey, Budget, LedgerHead, Price, Quota, Tenant
from tenants.prices import NoPrice

ADAPTER_PRICE = "adapter"  # the price book's line for adapters that have none of their own
ARMS = ("champion", "challenger", "fallback_adapter")
REMEMBERED = timedelta(days=90)  # for so long a key that ended is told why; then it is unknown


def load(key_id: str) -> TenantSnapshot | None:
    """The snapshot of the tenant with that key; None if nobody has it. Blocks; raises if database or Redis fail."""
    now_us = _now_us()
    tenant = Tenant.objects.select_related("budget").filter(api_keys=key_id).first()
    if tenant is None:
        return None
    # The epoch was read first: whatever changes while we read the rest makes this snapshot stale, not wrong.
    head = LedgerHead.objects.first()
    day, ends = _day(tenant.time_zone, now_us)
    base_models = list(BaseModel.objects.all())
    adapters = list(_loaded(tenant))
    aliases = list(
        Alias.objects.filter(tenant=tenant).select_related(
            "base", "fallback_base", *(f"{arm}__{of}" for arm in ARMS for of in ("base", "tenant"))
        )
    )
    book = Book([name for adapter in _used(adapters, aliases) for name in _names(adapter)], base_models, now_us, ends)
    terms = metering.Terms(
        mark=head.mark if head else "",
        epoch=tenant.epoch,
        until_us=book.until_us,
        day=day,
        budget_nano=_budget(tenant),
    )
    return TenantSnapshot(
        tenant=str(tenant.pk),
        epoch=tenant.epoch,
        mark=terms.mark,
        sequence=head.sequence if head else 0,
        policy=policies.current(tenant),
        routes={route.name: route for route in _routes(Targets(book, Hosts(tenant)), base_models, adapters, aliases)},
        keys={key.id: key for key in _keys(tenant, terms, now_us)},
        extras=frozenset(tenant.engine_extras),
        keeps_answers=tenant.keeps_answers,
    )


def terms(tenant_id: str) -> tuple[metering.Terms, int]:
    """By what the tenant's own work is admitted, which no key sends: its budget, and no limits; and how many steps of
    Redis the ledger has seen. Blocks, as `load`."""
    now_us = _now_us()
    tenant = Tenant.objects.select_related("budget").get(pk=tenant_id)
    head = LedgerHead.objects.first()
    day, ends = _day(tenant.time_zone, now_us)
    mark, sequence = (head.mark, head.sequence) if head else ("", 0)
    return metering.Terms(mark, tenant.epoch, ends, day, _budget(tenant)), sequence


class Book:
    """The lines of the price book that one tenant's routes need; `until_us` is when one of them changes, or `ends`."""

    def __init__(self, names: Sequence[str], base_models: Sequence[BaseModel], now_us: int, ends: int) -> None:
        wanted = {*names, ADAPTER_PRICE, *(base.name for base in base_models)}
        lines = Price.objects.filter(model__in=wanted, valid_from__lt=_moment(ends)).exclude(kind=Price.Kind.REFERENCE)
        self._lines: dict[str, Price] = {}
        changes = [ends]
        for line in lines.order_by("valid_from"):
            span = _us(line.valid_from), _us(line.valid_until)
            changes += [at for at in span if at > now_us]
            if span[0] <= now_us < span[1]:
                self._lines[line.model] = line
        self.until_us = min(changes)

    def first_of(self, names: Sequence[str]) -> Price:
        """The line in force of the first name that has one; raises NoPrice about the first name."""
        for name in names:
            if line := self._lines.get(name):
                return line
        raise NoPrice(names[0])


class Targets:
    """What a call can be sent to, with its price and its replicas."""

    def __init__(self, book: Book, hosts: Hosts) -> None:
        self._book, self._hosts = book, hosts

    def of(self, base: BaseModel, adapter: Adapter | None) -> Target:
        """Raises NoPrice."""
        price = self._book.first_of(_names(adapter) if adapter else [base.name])
        served, digest = (adapter.engine_name, adapter.digest) if adapter else (base.name, "")
        cached = price.input_nano_per_mtok if price.cached_nano_per_mtok is None else price.cached_nano_per_mtok
        of_price = (price.input_nano_per_mtok, price.output_nano_per_mtok, cached, price.pk)
        return Target(
            served,
            digest,
            *of_price,
            context_tokens=base.context_tokens,
            base=base.name,
            base_digest=base.digest,
            hosts=self._hosts.of(base, adapter),
        )


def _keys(tenant: Tenant, terms: metering.Terms, now_us: int) -> Iterator[Key]:
    """The live keys for inference, and those that ended not long ago."""
    quotas = {quota.key_id: quota for quota in Quota.objects.filter(tenant=tenant)}
    limits = {key_id: [getattr(quota, name) for name in metering.LIMITS] for key_id, quota in quotas.items()}
    of_tenant = limits.get(None, (None,) * 5)
    oldest = _us(_moment(now_us) - REMEMBERED)
    # A revocation is stamped by another clock: whichever is ahead decides, so that it holds at once.
    now_us = max(now_us, _us(timezone.now()))
    suspended = "" if tenant.status == Tenant.Status.ACTIVE else "suspended"
    for key in APIKey.objects.filter(tenant=tenant).lasting():
        ends = min(_us(key.expires_at), _us(key.revoked_at))
        if "inference" not in key.scopes or ends <= oldest:
            continue
        why = "revoked" if _us(key.revoked_at) == ends else "expired"
        yield Key(
            id=key.pk,
            salt=key.salt,
            digest=key.digest,
            terms=metering.Terms(
                terms.mark,
                terms.epoch,
                min(terms.until_us, ends),
                terms.day,
                terms.budget_nano,
                of_tenant,
                limits.get(key.pk, (None,) * 5),
            ),
            allowed_models=frozenset(key.allowed_models),
            default_max_tokens=key.default_max_tokens,
            ends_us=ends,
            ended=suspended or (why if ends <= now_us else ""),
        )


def _budget(tenant: Tenant) -> int:
    """Without a budget there is no money."""
    try:
        return tenant.budget.monthly_nano
    except Budget.DoesNotExist:
        return 0


def _loaded(tenant: Tenant) -> Iterator[Adapter]:
    found = Adapter.objects.filter(tenant=tenant, state=Adapter.State.LOADED)
    return iter(found.select_related("base", "tenant").order_by("created_at"))


def _used(adapters: Sequence[Adapter], aliases: Sequence[Alias]) -> list[Adapter]:
    behind = [adapter for alias in aliases for arm in ARMS if (adapter := getattr(alias, arm))]
    return [*adapters, *behind]


def _routes(
    targets: Targets, base_models: Sequence[BaseModel], adapters: Sequence[Adapter], aliases: Sequence[Alias]
) -> Iterator[Route]:
    """Later ones win a name: base models, then the tenant's loaded adapters, then its aliases."""
    for base in base_models:
        yield _route(targets, base.name, base, None)
    for adapter in adapters:
        yield _route(targets, str(adapter), adapter.base, adapter)
    for alias in aliases:
        yield _alias_route(targets, alias)


def _route(targets: Targets, name: str, base: BaseModel, adapter: Adapter | None) -> Route:
    try:
        return Route(name, targets.of(base, adapter), created=int((adapter or base).created_at.timestamp()))
    except NoPrice as error:
        return Route(name, None, unpriced=error.model)


def _alias_route(targets: Targets, alias: Alias) -> Route:
    try:
        champion = targets.of(alias.base, alias.champion)
        challenger = targets.of(alias.base, alias.challenger) if alias.challenger else None
    except NoPrice as error:
        return Route(alias.name, None, unpriced=error.model)
    split = alias.challenger_bp, alias.salt
    return Route(alias.name, champion, challenger, *split, is_alias=True, fallback=_fallback(targets, alias))


def _fallback(targets: Targets, alias: Alias) -> Target | None:
    """None where it has no price: nobody could say what its answers cost, and the alias has its own."""
    adapter = alias.fallback_adapter
    base = adapter.base if adapter else alias.fallback_base
    try:
        return targets.of(base, adapter) if base else None
    except NoPrice:
        return None


def _names(adapter: Adapter) -> list[str]:
    """Whose price an adapter has: its own, that of adapters, that of its base."""
    return [f"{adapter.tenant.slug}/{adapter}", ADAPTER_PRICE, adapter.base.name]


def _day(time_zone: str, now_us: int) -> tuple[str, int]:
    """The day YYYY-MM-DD it is in a time zone, and the microsecond since 1970 at which the next one begins."""
    zone = ZoneInfo(time_zone)
    today = _moment(now_us).astimezone(zone).date()
    midnight = datetime.combine(today + timedelta(days=1), datetime.min.time(), zone)
    ends = _us(midnight)
    # Where the clock is put back over midnight there are two of them.
    return today.isoformat(), ends if ends > now_us else _us(midnight.replace(fold=1))


def _now_us() -> int:
    """By Redis's clock, which is the only one that days and validities go by."""
    seconds, micros = counters.connect().time()
    return int(seconds) * 1_000_000 + int(micros)


def _moment(us: int) -> datetime:
    return datetime.fromtimestamp(us // 1_000_000, UTC) + timedelta(microseconds=us % 1_000_000)


def _us(moment: datetime | None) -> int:
    """Microseconds since 1970; NEVER for no moment."""
    if moment is None:
        return NEVER
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
