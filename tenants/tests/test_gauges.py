"""A gauge shows what the next admission will count; what cannot be known is unknown, never zero."""

from datetime import timedelta

import pytest
import redis
from django.utils import timezone

from tenants import costs, gauges, keys, metering
from tenants.models import Budget, LedgerHead, Quota

pytestmark = [pytest.mark.django_db, pytest.mark.journey]
MARK = f"{'ab' * 16}:1"


@pytest.fixture
def server(redis_url):
    """A Redis whose counters the ledger vouches for, for a long time already."""
    LedgerHead.objects.create(mark=MARK)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.hset(metering.STATE, mapping={"mark": MARK, "sequence": "0", "since": "0"})
        yield client


def admit(client, tenant, key, number=0, hold=1_000, tokens=100, tenant_limits=(None,) * 5, key_limits=(None,) * 5):
    client.hset(metering.EPOCHS, str(tenant.pk), "1")
    day = costs.today(tenant).isoformat()
    until = int((timezone.now() + timedelta(days=2)).timestamp() * 1_000_000)
    event = metering.Event(f"req_{number}", str(tenant.pk), key.pk, day, "settled", "m", "m")
    terms = metering.Terms(MARK, 1, until, day, 10**15, tenant_limits, key_limits)
    names, args = metering.admit(event, terms, hold, tokens)
    return metering.verdict(client.eval(metering.ADMIT, len(names), *names, *args))


def limits_of(reading):
    return {gauge.name: gauge.used for gauge in reading.limits}


def test_what_is_shown_is_what_an_admission_counts(cast, server):
    limits = (1_000, 50, 100_000, 10_000, 8)
    Quota.objects.filter(tenant=cast.acme).update(**dict(zip(metering.LIMITS, limits, strict=True)))
    key = keys.create(cast.acme, "web")[0]
    for number in range(3):
        verdict = admit(server, cast.acme, key, number, hold=700, tokens=1_000, tenant_limits=limits)
        assert verdict.reason == ""
    reading = gauges.read(cast.acme)
    shown = limits_of(reading)
    assert shown["concurrent_calls"] == 3
    assert 0 <= shown["requests_per_second"] <= 3
    assert shown["requests_per_minute"] == 3  # 50 a minute: one drains in 1.2 s
    assert 2_800 < shown["tokens_per_minute"] <= 3_000
    assert (reading.spent, reading.held, reading.used) == (0, 2_100, 2_100)
    assert reading.left == 100_000_000_000 - 2_100
    last = admit(server, cast.acme, key, 9, tokens=9_000, tenant_limits=limits)
    assert (last.reason, last.limit_name) == ("refused", "tokens_per_minute")
    assert abs(last.value - limits_of(gauges.read(cast.acme))["tokens_per_minute"]) <= 60  # some 10 ms later


def test_a_key_has_its_own_levels_and_the_money_of_its_tenant(cast, server):
    key, other = keys.create(cast.acme, "web")[0], keys.create(cast.acme, "mobil")[0]
    Quota.objects.create(tenant=cast.acme, key=key, requests_per_minute=10, concurrent_calls=5)
    Quota.objects.create(tenant=cast.acme, key=other, requests_per_minute=10)
    admit(server, cast.acme, key, hold=5, key_limits=(None, 10, None, None, 5))
    assert limits_of(gauges.read(cast.acme, key)) == {
        "requests_per_second": None,
        "requests_per_minute": 1,
        "tokens_per_second": None,
        "tokens_per_minute": None,
        "concurrent_calls": 1,
    }
    assert limits_of(gauges.read(cast.acme, other))["requests_per_minute"] == 0
    assert gauges.read(cast.acme, other).held == 5


def test_another_tenants_use_is_not_counted(cast, server):
    admit(server, cast.globex, keys.create(cast.globex, "x")[0], hold=5)
    reading = gauges.read(cast.acme)
    assert reading.used == 0
    assert limits_of(reading)["concurrent_calls"] == 0


def test_after_a_rebuild_an_untouched_bucket_counts_as_full_and_drains(cast, server):
    seconds, _ = server.time()
    server.hset(metering.STATE, "since", str((seconds - 30) * 1_000_000))
    assert 29 <= limits_of(gauges.read(cast.acme))["requests_per_minute"] <= 31  # half of 60
    server.hset(metering.STATE, "since", str((seconds - 61) * 1_000_000))
    assert limits_of(gauges.read(cast.acme))["requests_per_minute"] == 0


@pytest.mark.parametrize("mark", ["", f"{'cd' * 16}:1", f"{'ab' * 16}:2"])
def test_counters_that_the_ledger_does_not_vouch_for_are_unknown(cast, server, mark):
    server.hset(metering.STATE, "mark", mark)
    reading = gauges.read(cast.acme)
    assert reading.problem == gauges.UNVOUCHED
    assert set(limits_of(reading).values()) == {None}
    assert (reading.spent, reading.used, reading.left) == (None, None, None)
    assert [gauge.limit for gauge in reading.limits][1] == 60


def test_a_redis_that_does_not_answer_is_unknown_and_the_limits_still_show(cast, settings):
    settings.REDIS_URL = "unix:///nonexistent/redis.sock"
    reading = gauges.read(cast.acme)
    assert reading.problem == gauges.UNREACHABLE
    assert set(limits_of(reading).values()) == {None}
    assert reading.budget == 100_000_000_000


def test_without_an_installation_nothing_is_vouched_for(cast, redis_url):
    assert gauges.read(cast.acme).problem == gauges.UNVOUCHED


def test_the_month_is_that_of_the_tenants_time_zone(cast, server):
    cast.acme.time_zone = "Pacific/Kiritimati"
    cast.acme.save()
    month = costs.this_month(cast.acme)
    server.hset(f"{metering.MONTH}{cast.acme.pk}:{month}", mapping={"spent": "77", "held": "3"})
    assert gauges.read(cast.acme).used == 80


def test_tight_begins_at_four_fifths_and_never_without_a_number():
    assert gauges.Gauge("x", 10, 8).tight
    assert not gauges.Gauge("x", 10, 7).tight
    assert not gauges.Gauge("x", None, 99).tight
    assert not gauges.Gauge("x", 10, None).tight


def test_no_budget_leaves_nothing_to_compute(cast, server):
    Budget.objects.all().delete()
    assert gauges.read(cast.acme).left is None
