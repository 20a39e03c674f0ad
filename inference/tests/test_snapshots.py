"""What the loader reads of a tenant, how often it asks the database, and until when what it read holds."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from inference import aliases, snapshots
from inference.gateway.snapshot import NEVER, TenantSnapshot
from inference.models import Adapter, BaseModel
from inference.snapshots import _day, _us
from tenants import keys, ledger, limits, prices
from tenants.models import APIKey, Price, Quota

QUERIES = 11  # tenant with budget, head, bases, adapters, aliases, prices, policy, quotas, keys


def at(text):
    return _us(datetime.fromisoformat(text))


def read(key_id) -> TenantSnapshot:
    snapshot = snapshots.load(key_id)
    assert snapshot
    return snapshot


def target(key_id, model) -> Any:
    return read(key_id).routes[model].champion


@pytest.fixture
def known(base, cast, key, redis_url):
    ledger.head()
    return key.split("_")[2]


def test_one_snapshot_has_all_keys_of_the_tenant_with_their_limits(known, cast):
    other, _ = keys.create(cast.acme, "other", cast.owner, allowed_models=["a"], default_max_tokens=9)
    reader, _ = keys.create(cast.acme, "reader", cast.owner, scopes=["usage"])
    foreign, _ = keys.create(cast.globex, "foreign")
    limits.set_quota(cast.acme, cast.owner, key=other, tokens_per_second=7)
    snapshot = read(known)
    assert set(snapshot.keys) == {known, other.pk}
    assert (snapshot.tenant, snapshot.mark) == (str(cast.acme.pk), ledger.mark())
    first, second = snapshot.keys[known], snapshot.keys[other.pk]
    assert list(first.terms.tenant_limits) == [None, 60, None, None, None]
    assert list(second.terms.key_limits) == [None, None, 7, None, None]
    assert (first.allows("a"), first.allows("b"), second.allows("a"), second.allows("b")) == (True, True, True, False)
    assert (first.default_max_tokens, second.default_max_tokens) == (1024, 9)
    assert first.terms.budget_nano == 100_000_000_000
    cast.acme.refresh_from_db()
    assert first.terms.epoch == snapshot.epoch == cast.acme.epoch
    assert read(reader.pk).keys.keys() == snapshot.keys.keys()
    assert snapshots.load("nobody") is None


def test_the_number_of_queries_does_not_grow(known, cast, publish, django_assert_num_queries):
    with django_assert_num_queries(QUERIES):
        read(known)
    for number in range(4):
        record, _ = keys.create(cast.acme, f"key {number}", cast.owner)
        limits.set_quota(cast.acme, cast.owner, key=record, requests_per_second=1)
        adapter = publish(f"adapter{number}")
        Adapter.objects.filter(pk=adapter.pk).update(state="loaded")
        alias = aliases.create(cast.acme, f"alias{number}", adapter.base)
        alias.champion = alias.challenger = adapter
        alias.save()
        BaseModel.objects.create(name=f"base{number}", source="/m")
    with django_assert_num_queries(QUERIES):
        snapshot = read(known)
    assert len(snapshot.keys) == 5
    assert len(snapshot.routes) == 1 + 4 + 4 + 4


def test_terms_end_with_the_day_and_before_it_with_a_price_or_a_key(known, cast, base):
    now = datetime.now(UTC)
    whole_day = read(known).keys[known].terms.until_us
    assert whole_day == _day("Europe/Istanbul", _us(now))[1]
    soon = now + timedelta(seconds=2)
    if _us(soon) >= whole_day:
        pytest.skip("the day is about to end")
    old = Price.objects.get()
    Price.objects.filter(pk=old.pk).update(valid_until=soon)
    new = Price.objects.create(model="demo-base", input_nano_per_mtok=1, output_nano_per_mtok=1, valid_from=soon)
    snapshot = read(known)
    assert snapshot.keys[known].terms.until_us == _us(soon)
    assert target(known, "demo-base").price == old.pk
    earlier = now + timedelta(seconds=1)
    APIKey.objects.filter(pk=known).update(expires_at=earlier)
    assert read(known).keys[known].terms.until_us == _us(earlier)
    Price.objects.filter(pk=new.pk).delete()
    Price.objects.filter(pk=old.pk).update(valid_until=now - timedelta(seconds=1))
    assert read(known).routes["demo-base"].unpriced == "demo-base"


def test_a_price_for_comparison_bills_nobody(known, base):
    Price.objects.update(kind=Price.Kind.REFERENCE)
    assert target(known, "demo-base") is None


def test_an_adapter_costs_what_its_own_line_says_then_that_of_adapters_then_its_base(known, cast, publish):
    adapter = publish("destek")
    Adapter.objects.filter(pk=adapter.pk).update(state="loaded")

    def cost():
        return target(known, "destek-v1").input_nano_per_mtok

    found = [cost()]
    for model, nano in (("adapter", 5), ("acme/destek-v1", 6)):
        prices.set_(model, cast.operator, input_nano_per_mtok=nano, output_nano_per_mtok=1)
        found.append(cost())
    assert found == [1_000_000, 5, 6]


def test_a_key_that_ended_is_remembered_for_a_while_with_the_reason(known, cast):
    ended = {}
    for name, changes in (
        ("expired", {"expires_at": datetime.now(UTC) - timedelta(days=1)}),
        ("revoked", {"revoked_at": datetime.now(UTC)}),
        ("forgotten", {"revoked_at": datetime.now(UTC) - timedelta(days=91)}),
        ("in grace", {"revoked_at": datetime.now(UTC) + timedelta(hours=1)}),
    ):
        record, _ = keys.create(cast.acme, name)
        APIKey.objects.filter(pk=record.pk).update(**changes)
        ended[name] = record.pk
    found = read(known).keys
    assert found[ended["expired"]].ended == "expired"
    assert found[ended["revoked"]].ended == "revoked"
    assert found[ended["in grace"]].ended == ""
    assert ended["forgotten"] not in found
    assert found[known].ends_us == NEVER
    cast.acme.status = "suspended"
    cast.acme.save()
    assert {key.ended for key in read(known).keys.values()} == {"suspended"}


def test_without_a_quota_there_is_no_limit_and_without_a_budget_no_money(known, cast):
    Quota.objects.all().delete()
    cast.acme.budget.delete()
    terms = read(known).keys[known].terms
    assert (list(terms.tenant_limits), terms.budget_nano) == ([None] * 5, 0)


@pytest.mark.parametrize(
    ("zone", "now", "day", "ends"),
    [
        ("Europe/Istanbul", "2026-11-24T21:30:00+00:00", "2026-11-25", "2026-11-25T21:00:00+00:00"),
        ("UTC", "2026-12-31T23:59:59+00:00", "2026-12-31", "2027-01-01T00:00:00+00:00"),
        ("America/New_York", "2026-11-01T05:30:00+00:00", "2026-11-01", "2026-11-02T05:00:00+00:00"),  # 25 hours
        ("Africa/Cairo", "2026-04-23T20:00:00+00:00", "2026-04-23", "2026-04-23T22:00:00+00:00"),  # no midnight
        ("America/St_Johns", "2010-11-07T02:31:30+00:00", "2010-11-06", "2010-11-07T03:30:00+00:00"),  # two of them
    ],
)
def test_a_day_ends_at_the_tenants_midnight(zone, now, day, ends):
    assert _day(zone, at(now)) == (day, at(ends))
