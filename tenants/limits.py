"""A tenant's limits and those of its keys: how they change. Checking them is admission's work (`metering`)."""

from __future__ import annotations

from django.db import transaction
from django.utils.translation import gettext as _

from tenants import audit, epochs
from tenants.models import NANO, APIKey, Budget, Quota, Tenant, User
from tenants.problems import Refused

MOST = {
    "requests_per_second": Quota.MOST_PER_SECOND,
    "requests_per_minute": Quota.MOST_PER_MINUTE,
    "tokens_per_second": Quota.MOST_PER_SECOND,
    "tokens_per_minute": Quota.MOST_PER_MINUTE,
    "concurrent_calls": Quota.MOST_OPEN,
}
MOST_DOLLARS = 9_000_000  # a month; nano-dollars beyond it are not exact in Lua


class QuotaOutOfRange(Refused):
    """A limit below 0 or above what can be counted exactly; `most` is the highest one."""

    def __init__(self, field: str) -> None:
        self.most = MOST[field]
        words = {"field": Quota._meta.get_field(field).verbose_name, "most": f"{self.most:,}"}  # type: ignore[union-attr]
        super().__init__(_("%(field)s: a whole number from 0 to %(most)s, or empty for no limit.") % words, field)


class ForeignKey(Refused):
    """The key is another tenant's."""

    field = "key"

    def __init__(self, key_id: str) -> None:
        super().__init__(_("This tenant has no key %(key)s.") % {"key": key_id})


class BudgetOutOfRange(Refused):
    field = "monthly_nano"
    most = MOST_DOLLARS * NANO

    def __init__(self) -> None:
        super().__init__(_("A month's budget is a whole number of nano-dollars from 0 to $9,000,000."))


@transaction.atomic
def set_quota(tenant: Tenant, actor: User | None, *, key: APIKey | None = None, **fields: int | None) -> Quota:
    """Changes the limits that are named (`Quota.FIELDS`), of the tenant or of one of its keys.

    They hold from the next call on; 0 stops it, None takes the limit away. Raises QuotaOutOfRange and ForeignKey.
    """
    if key and key.tenant_id != tenant.pk:
        raise ForeignKey(key.pk)
    for name, value in fields.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and 0 <= value <= MOST[name]):
            raise QuotaOutOfRange(name)
    found = Quota.objects.select_for_update().filter(tenant=tenant, key=key).first()
    before = found and _limits(found)
    quota, _made = Quota.objects.update_or_create(tenant=tenant, key=key, defaults=fields)
    if _limits(quota) != before:
        subject = f"key {key.pk}" if key else tenant.slug
        _note(tenant, actor, "quota.set", subject, before, _limits(quota))
    return quota


@transaction.atomic
def set_budget(tenant: Tenant, monthly_nano: int, actor: User | None) -> Budget:
    """Nano-dollars a calendar month of the tenant's time zone; holds from the next call on. Raises BudgetOutOfRange."""
    whole = isinstance(monthly_nano, int) and not isinstance(monthly_nano, bool)
    if not (whole and 0 <= monthly_nano <= BudgetOutOfRange.most):
        raise BudgetOutOfRange
    before = Budget.objects.filter(tenant=tenant).values_list("monthly_nano", flat=True).first()
    budget, _made = Budget.objects.update_or_create(tenant=tenant, defaults={"monthly_nano": monthly_nano})
    if before != monthly_nano:
        _note(tenant, actor, "budget.set", tenant.slug, before, monthly_nano)
    return budget


def _limits(quota: Quota) -> dict[str, int | None]:
    return {name: getattr(quota, name) for name in Quota.FIELDS}


def _note(tenant: Tenant, actor: User | None, action: str, subject: str, before: object, after: object) -> None:
    audit.record(actor, action, subject, before, after, tenant)
    epochs.raise_(tenant)
