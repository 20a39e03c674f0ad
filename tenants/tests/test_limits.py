"""Limits and budgets change within their bounds, from the next call on, with a record of what they were."""

from typing import Any

import pytest

from tenants import keys, limits
from tenants.models import NANO, AuditEntry, Budget, Quota

pytestmark = pytest.mark.django_db


def changed(entry: AuditEntry, field: str):
    assert entry.before is not None
    assert entry.after is not None
    return entry.before[field], entry.after[field]


def test_only_what_is_named_changes_and_the_next_call_sees_it(cast):
    before = cast.acme.epoch
    quota = limits.set_quota(cast.acme, cast.owner, tokens_per_minute=900)
    assert (quota.requests_per_minute, quota.tokens_per_minute) == (60, 900)
    limits.set_quota(cast.acme, cast.owner, requests_per_minute=None)
    assert Quota.objects.get(tenant=cast.acme, key=None).requests_per_minute is None
    cast.acme.refresh_from_db()
    assert cast.acme.epoch == before + 2
    first, second = AuditEntry.objects.filter(action="quota.set").order_by("pk")
    assert changed(first, "tokens_per_minute") == (None, 900)
    assert changed(second, "requests_per_minute") == (60, None)


def test_the_same_again_is_no_change(cast):
    for _ in range(2):
        limits.set_quota(cast.acme, cast.owner, concurrent_calls=3)
        limits.set_budget(cast.acme, 7, cast.owner)
    assert AuditEntry.objects.count() == 2


def test_a_keys_limits_stand_beside_its_tenants(cast):
    key, _ = keys.create(cast.acme, "x")
    limits.set_quota(cast.acme, cast.owner, key=key, requests_per_second=1)
    limits.set_quota(cast.acme, cast.owner, key=key, requests_per_second=2)
    assert Quota.objects.get(key=key).requests_per_second == 2
    assert Quota.objects.get(tenant=cast.acme, key=None).requests_per_second is None
    assert Quota.objects.get(tenant=cast.globex).requests_per_minute == 60


def test_a_key_of_another_tenant_gets_no_limits(cast):
    theirs, _ = keys.create(cast.globex, "g")
    with pytest.raises(limits.ForeignKey):
        limits.set_quota(cast.acme, cast.owner, key=theirs, requests_per_second=1)
    assert not Quota.objects.filter(key=theirs).exists()


@pytest.mark.parametrize("field", Quota.FIELDS)
def test_negative_and_absurd_limits_name_the_most(cast, field):
    most = limits.MOST[field]
    wrongs: list[Any] = [-1, most + 1, 2**63, 1.5, True, "7"]
    for wrong in wrongs:
        with pytest.raises(limits.QuotaOutOfRange, match=f"{most:,}") as error:
            limits.set_quota(cast.acme, cast.owner, **{field: wrong})
        assert (error.value.field, error.value.most) == (field, most)
    highest: dict[str, Any] = {field: most}
    assert getattr(limits.set_quota(cast.acme, cast.owner, **highest), field) == most


@pytest.mark.parametrize("wrong", [-1, 9_000_000 * NANO + 1, 1.5, True])
def test_a_budget_beyond_what_can_be_counted_is_refused(cast, wrong):
    with pytest.raises(limits.BudgetOutOfRange, match=r"\$9,000,000"):
        limits.set_budget(cast.acme, wrong, cast.owner)
    assert Budget.objects.get(tenant=cast.acme).monthly_nano == 100 * NANO
    assert limits.set_budget(cast.acme, 9_000_000 * NANO, cast.owner).monthly_nano == 9_000_000 * NANO
