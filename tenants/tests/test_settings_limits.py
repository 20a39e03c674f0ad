"""The page of limits: live or unknown, changed by an owner, and nothing typed is lost."""

import struct
from datetime import timedelta

import pytest
import redis
from django.urls import reverse
from django.utils import timezone

from tenants import costs, metering
from tenants.models import AuditEntry, Budget, LedgerHead, Quota, RefusalCount

pytestmark = [pytest.mark.django_db, pytest.mark.journey]
PAGE = "/t/acme/settings/limits/"
MARK = f"{'ab' * 16}:1"


@pytest.fixture(autouse=True)
def english(cast):
    for person in (cast.owner, cast.engineer, cast.auditor, cast.operator):
        person.language = "en"
        person.save()


@pytest.fixture
def server(redis_url):
    LedgerHead.objects.create(mark=MARK)
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.hset(metering.STATE, mapping={"mark": MARK, "sequence": "0", "since": "0"})
        yield client


def test_what_is_used_now_is_shown_with_the_money(client, cast, server):
    seconds, micros = server.time()
    levels = struct.pack("<9d", seconds * 1_000_000 + micros, -1, 48 * 60_000_000, -1, -1, 0, 0, -1, -1)
    server.hset(metering.OPEN, f"{cast.acme.pk}:levels", levels)
    server.hset(metering.OPEN, str(cast.acme.pk), 7)
    month = f"{metering.MONTH}{cast.acme.pk}:{costs.this_month(cast.acme)}"
    server.hset(month, mapping={"spent": 81_000_000_000, "held": 250_000_000})
    client.force_login(cast.auditor)
    shown = client.get(PAGE)
    gauge = {gauge.name: gauge for gauge in shown.context["reading"].limits}["requests_per_minute"]
    assert 46 <= gauge.used <= 48
    assert "Nearly full" in shown.text  # 48 of 60, and the money too
    for amount in ("$81.00", "$0.25", "$18.75"):
        assert amount in shown.text
    assert ">7 <" in shown.text  # calls under way, with no limit on them
    fragment = client.get(PAGE, headers={"HX-Request": "true"}).text
    assert fragment.lstrip().startswith('<div id="levels"')
    assert "<form" not in fragment


@pytest.mark.parametrize("down", [True, False])
def test_unknown_is_said_and_never_shown_as_zero(client, cast, settings, redis_url, down):
    if down:
        settings.REDIS_URL = "unix:///nonexistent/redis.sock"
    client.force_login(cast.owner)
    text = client.get(PAGE).text
    assert ("do not answer" if down else "are being rebuilt") in text
    assert "unknown" in text
    assert "$0.00" not in text
    assert '0 <span class="unit">/ 60' not in text
    assert 'name="requests_per_minute" value="60"' in text  # the form still works


def test_an_owner_changes_takes_away_and_leaves_alone(client, cast):
    client.force_login(cast.owner)
    Quota.objects.filter(tenant=cast.acme).update(tokens_per_minute=9)
    wanted = {"requests_per_minute": "1,000", "requests_per_second": " 20 ", "tokens_per_minute": ""}
    assert client.post(reverse("quota_set", args=["acme"]), wanted).url == PAGE
    quota = Quota.objects.get(tenant=cast.acme, key=None)
    assert (quota.requests_per_minute, quota.requests_per_second, quota.tokens_per_minute) == (1000, 20, None)
    entry = AuditEntry.objects.get(action="quota.set")
    assert (entry.before or {})["requests_per_minute"] == 60
    assert (entry.after or {})["requests_per_minute"] == 1000
    cast.acme.refresh_from_db()
    assert cast.acme.epoch > 1


BAD = ["-1", "1.5", "abc", "10000001", "1e3", "٣٤x"]


@pytest.mark.parametrize("typed", BAD)
def test_bad_limits_are_explained_and_nothing_changes(client, cast, typed):
    client.force_login(cast.owner)
    answer = client.post(
        reverse("quota_set", args=["acme"]), {"requests_per_second": typed, "requests_per_minute": "777"}
    )
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == ["requests_per_second"]
    assert f'value="{typed}"' in answer.text
    assert 'value="777"' in answer.text
    assert Quota.objects.get(tenant=cast.acme, key=None).requests_per_minute == 60


@pytest.mark.parametrize(
    ("language", "typed", "nano"),
    [
        ("en", "1,284.60", 1_284_600_000_000),
        ("tr", "1.284,60", 1_284_600_000_000),
        ("tr", "1.284", 1_284_000_000_000),
        ("en", "1,284", 1_284_000_000_000),
        ("tr", "0.125", 125_000_000),
        ("tr", "0,000000001", 1),
        ("en", "$250", 250_000_000_000),
        ("en", "0", 0),
        ("tr", "9.000.000", 9_000_000_000_000_000),
    ],
)
def test_a_budget_is_typed_as_people_write_money(client, cast, language, typed, nano):
    cast.owner.language = language
    cast.owner.save()
    client.force_login(cast.owner)
    assert client.post(reverse("budget_set", args=["acme"]), {"dollars": typed}).status_code == 302
    assert Budget.objects.get(tenant=cast.acme).monthly_nano == nano


@pytest.mark.parametrize("typed", ["", "-1", "9000000.01", "nan", "inf", "1e9", "0.0000000001", "many"])
def test_a_bad_budget_changes_nothing(client, cast, typed):
    client.force_login(cast.owner)
    answer = client.post(reverse("budget_set", args=["acme"]), {"dollars": typed})
    assert answer.status_code == 422
    assert answer.context["budget_form"].errors["dollars"]
    assert Budget.objects.get(tenant=cast.acme).monthly_nano == 100_000_000_000


@pytest.mark.parametrize("nano", [0, 1, 250_000_000_000, 1_284_600_000_000, 9_000_000_000_000_000])
def test_a_budget_comes_back_from_its_form_as_it_was(client, cast, nano):
    Budget.objects.filter(tenant=cast.acme).update(monthly_nano=nano)
    for language in ("tr", "en"):
        cast.owner.language = language
        cast.owner.save()
        client.force_login(cast.owner)
        typed = client.get(PAGE).context["budget_form"]["dollars"].value()
        client.post(reverse("budget_set", args=["acme"]), {"dollars": typed})
        assert Budget.objects.get(tenant=cast.acme).monthly_nano == nano


@pytest.mark.parametrize("role", ["engineer", "developer", "reviewer", "auditor"])
def test_others_see_and_change_nothing(client, cast, role):
    client.force_login(getattr(cast, role))
    assert reverse("quota_set", args=["acme"]) not in client.get(PAGE).text
    for verb in ("quota_set", "budget_set"):
        assert client.post(reverse(verb, args=["acme"]), {"dollars": "1"}).status_code == 403


def test_an_operator_changes_them_in_every_tenant(client, cast):
    client.force_login(cast.operator)
    assert client.post(reverse("budget_set", args=["globex"]), {"dollars": "7"}).status_code == 302
    assert Budget.objects.get(tenant=cast.globex).monthly_nano == 7_000_000_000


def test_a_stranger_finds_nothing(client, cast):
    client.force_login(cast.outsider)
    assert client.get(PAGE).status_code == 404
    for verb in ("quota_set", "budget_set"):
        assert client.post(reverse(verb, args=["acme"]), {"dollars": "1"}).status_code == 404


def test_refusals_of_the_last_hour_stand_at_their_limit(client, cast):
    now = timezone.now()
    for minutes, count in ((5, 30), (10, 11), (61, 500)):
        RefusalCount.objects.create(
            tenant=cast.acme, key_id="k", minute=now - timedelta(minutes=minutes), limit="concurrent_calls", count=count
        )
    RefusalCount.objects.create(tenant=cast.globex, key_id="k", minute=now, limit="budget", count=3)
    client.force_login(cast.owner)
    text = client.get(PAGE).text
    assert "41 calls were refused" in text
    assert "refused by the budget" not in text


def test_no_budget_says_what_that_means(client, cast):
    Budget.objects.all().delete()
    client.force_login(cast.owner)
    assert "No budget is set" in client.get(PAGE).text
