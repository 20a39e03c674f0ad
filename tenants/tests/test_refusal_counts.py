"""Counts of refused calls: each finished minute reaches the database once, and nothing that names nobody."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import redis
from django.utils import timezone

from tenants import keys, metering, refusals
from tenants.models import BudgetAlert, RefusalCount, UsageMonth
from tenants.refusals import tally


@pytest.fixture(params=[True, False], ids=["text", "bytes"])
def client(redis_url, request):
    with redis.Redis.from_url(redis_url, decode_responses=request.param) as client:
        yield client


@pytest.fixture
def key(cast):
    return keys.create(cast.acme, "destek-web", cast.owner)[0]


def minute(client, ago=0):
    return client.time()[0] // 60 - ago


def refuse(client, minute, tenant, key, number, calls):
    client.hincrby(f"{metering.REFUSED}{minute}", f"{tenant.pk} {key} {number}", calls)


def test_finished_minutes_are_moved_and_twice_is_once(client, cast, key):
    this = minute(client)
    refuse(client, this - 2, cast.acme, key.pk, 2, 5)  # the tenant's requests a minute
    refuse(client, this - 2, cast.acme, key.pk, 7, 3)  # the key's
    refuse(client, this - 1, cast.acme, key.pk, 11, 1)
    refuse(client, this + 1, cast.acme, key.pk, 2, 9)
    kept = client.hgetall(f"{metering.REFUSED}{this - 2}")
    assert refusals.collect(client) == 2
    rows = RefusalCount.objects.order_by("minute").values_list("tenant", "key_id", "minute", "limit", "count")
    at = datetime.fromtimestamp((this - 2) * 60, UTC)
    assert list(rows) == [
        (cast.acme.pk, key.pk, at, "requests_per_minute", 8),
        (cast.acme.pk, key.pk, at + timedelta(minutes=1), "budget", 1),
    ]
    assert [int(name[len(metering.REFUSED) :]) for name in client.keys(f"{metering.REFUSED}*")] == [this + 1]
    client.hset(f"{metering.REFUSED}{this - 2}", mapping=kept)  # as if it had died before it deleted them
    assert refusals.collect(client) == 1
    assert RefusalCount.objects.get(limit="requests_per_minute").count == 8


def test_a_budget_that_refuses_is_an_alert_once_most_of_it_is_spent(client, cast, key):
    month = f"{timezone.now().astimezone(ZoneInfo(cast.acme.time_zone)):%Y%m}"
    spent = UsageMonth.objects.create(tenant=cast.acme, month=month, cost_nano=79_000_000_000)
    refuse(client, minute(client) - 1, cast.acme, key.pk, 11, 4)
    tally.collect(client)
    assert not BudgetAlert.objects.exists()  # one dear call is not the end of the budget
    UsageMonth.objects.filter(pk=spent.pk).update(cost_nano=99_900_000_000)
    for _twice in range(2):
        refuse(client, minute(client) - 1, cast.acme, key.pk, 11, 4)
        refuse(client, minute(client) - 1, cast.acme, key.pk, 2, 4)
        tally.collect(client)
    alert = BudgetAlert.objects.get()
    assert (alert.tenant, alert.percent, alert.spent_nano) == (cast.acme, 100, 99_900_000_000)


def test_what_names_nobody_is_dropped(client, cast, key):
    this = minute(client)
    refuse(client, this - 1, cast.globex, key.pk, 2, 5)
    refuse(client, this - 1, cast.acme, "unknown", 2, 5)
    client.hincrby(f"{metering.REFUSED}{this - 1}", f"{uuid.uuid4()} {key.pk} 2", 5)
    client.hincrby(f"{metering.REFUSED}{this - 1}", f"nobody {key.pk} 2", 5)
    assert refusals.collect(client) == 0
    assert not RefusalCount.objects.exists()
    assert not client.keys(f"{metering.REFUSED}*")
    assert refusals.collect(client) == 0


def count(tenant, key, limit, ago, calls):
    at = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=ago)
    RefusalCount.objects.create(tenant=tenant, key_id=key, minute=at, limit=limit, count=calls)


def test_a_day_by_hours_and_an_hour_by_minutes(cast, key, django_assert_num_queries):
    count(cast.acme, key.pk, "requests_per_minute", 5, 7)
    count(cast.acme, key.pk, "budget", 5, 2)
    count(cast.acme, key.pk, "requests_per_minute", 300, 4)
    count(cast.acme, key.pk, "requests_per_minute", 60 * 25, 100)
    count(cast.globex, key.pk, "requests_per_minute", 5, 1000)
    with django_assert_num_queries(3):
        day = tally.counts(cast.acme, tally.SPANS["day"])
    assert (len(day.bars), day.total, day.limits) == (24, 13, ["requests_per_minute", "budget"])
    assert sum(sum(calls.values()) for _, calls in day.bars) == 13
    assert day.keys == [(key.pk, "destek-web", "requests_per_minute", 11), (key.pk, "destek-web", "budget", 2)]
    hour = tally.counts(cast.acme, tally.SPANS["hour"])
    assert (len(hour.bars), hour.total, hour.busiest[1]) == (60, 9, 9)
    assert hour.bars[-6][1] == {"requests_per_minute": 7, "budget": 2} or hour.bars[-7][1]  # a minute may pass


def test_the_figure_stacks_limits_in_the_tenant_s_time(cast, key):
    start = datetime(2026, 9, 10, 22, tzinfo=UTC)
    counted = tally.Counts(tally.SPANS["day"], [(start, {"budget": 3})], [(key.pk, "destek-web", "budget", 3)])
    figure = tally.figure(counted, {"budget": "Bütçe"}, ZoneInfo("Europe/Istanbul"))
    assert [(bars["name"], bars["x"], bars["y"]) for bars in figure["data"]] == [("Bütçe", ["2026-09-11 01:00"], [3])]
