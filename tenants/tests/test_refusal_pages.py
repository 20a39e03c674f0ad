"""The pages and the API of refused calls: everybody of the tenant reads them, nobody else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from tenants import decisions, keys, metering, refusals
from tenants.models import RefusalCount

pytestmark = pytest.mark.journey

AT = 1_789_000_000_123_456


@pytest.fixture
def key(cast):
    return keys.create(cast.acme, "destek-web", cast.owner)[0]


@pytest.fixture
def decision(cast, key):
    both = [metering.Refusal(scope, "requests_per_minute", 60, 60, 1, 1_200_000, 61) for scope in ("tenant", "key")]
    found = decisions.Decision(
        str(cast.acme.pk), key.pk, AT, "rate_limit_exceeded", "tenant", "requests_per_minute", 60, 60, 1, 1_200_000,
        "destek", 1124, 90_000, 1024, 1, tuple(both),
    )  # fmt: skip
    return decisions.issue(refusals.secret(), found)


@pytest.fixture
def at(client, cast):
    def get(user, name, *args, tenant="acme", language="en", **query):
        user.language = language
        user.save()
        client.force_login(user)
        return client.get(reverse(name, args=[tenant, *args]), query)

    return get


def count(tenant, key, limit, calls, minutes_ago=90):
    at = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=minutes_ago)
    RefusalCount.objects.create(tenant=tenant, key_id=key.pk, minute=at, limit=limit, count=calls)


@pytest.mark.parametrize("role", ["owner", "engineer", "developer", "reviewer", "auditor", "operator"])
def test_everybody_of_the_tenant_reads_why(at, cast, decision, role):
    page = at(getattr(cast, role), "refusal", decision)
    text = page.content.decode()
    assert page.status_code == 200
    assert "Send it 1.2 s later." in text
    assert "Raise requests per minute of the tenant from 60 to 61." in text
    assert "Raise requests per minute of the key destek-web from 60 to 61." in text
    links = (reverse("limits", args=["acme"]) in text, "/settings/keys/" in text)
    assert links == (role in ("owner", "operator"), role in ("owner", "operator", "engineer", "developer"))


def test_it_is_told_in_turkish_too(at, cast, decision):
    text = at(cast.owner, "refusal", decision, language="tr").content.decode()
    assert 'lang="tr"' in text
    assert "1,2" in text
    assert "10 Eyl 2026, 03.26.40" in text  # in the tenant's time zone


def test_a_stranger_and_another_tenant_see_nothing(at, client, cast, decision):
    assert at(cast.outsider, "refusal", decision).status_code == 404
    assert at(cast.outsider, "refusals").status_code == 404
    assert at(cast.outsider, "refusal", decision, tenant="globex").status_code == 404
    assert at(cast.owner, "refusal", "dec_nonsense").status_code == 404
    client.logout()
    assert client.get(reverse("refusals", args=["acme"])).status_code == 302


def test_a_pasted_id_leads_to_its_page_and_a_wrong_one_says_so(at, cast, decision):
    found = at(cast.auditor, "refusals", id=f"  {decision} ")
    assert (found.status_code, found.url) == (302, reverse("refusal", args=["acme", decision]))
    wrong = at(cast.auditor, "refusals", id='dec_"<b>')
    assert wrong.status_code == 422
    assert "Copy the whole id" in wrong.content.decode()
    assert "dec_&quot;&lt;b&gt;" in wrong.content.decode()
    assert at(cast.outsider, "refusals", tenant="globex", id=decision).status_code == 422


def test_counts_of_the_day_and_of_the_hour(at, client, cast, key, django_assert_max_num_queries):
    count(cast.acme, key, "requests_per_minute", 1200)
    count(cast.acme, key, "budget", 34, minutes_ago=5)
    count(cast.globex, key, "budget", 777)
    page = at(cast.auditor, "refusals")
    with django_assert_max_num_queries(12):
        client.get(reverse("refusals", args=["acme"]))
    text = page.content.decode()
    assert "1,234 calls were refused in the last 24 hours" in text
    assert "777" not in text
    assert "destek-web" in text
    assert page.context["figure"]["layout"]["showlegend"]
    hour = at(cast.auditor, "refusals", span="hour").content.decode()
    assert "34 calls were refused in the last 60 minutes" in hour
    assert "No call was refused" in at(cast.outsider, "refusals", tenant="globex", span="hour").content.decode()


def test_the_api_counts_and_explains(client, cast, key, decision):
    count(cast.acme, key, "budget", 3)
    client.force_login(cast.auditor)
    rows = client.get("/api/v1/t/acme/refusals/").json()["results"]
    assert [(row["key"], row["limit"], row["count"]) for row in rows] == [(key.pk, "budget", 3)]
    assert client.get("/api/v1/t/acme/refusals/?key=other").json()["results"] == []
    answer = client.get(f"/api/v1/t/acme/refusals/{decision}/", headers={"accept-language": "en"})
    told = answer.json()
    assert answer.status_code == 200
    assert (told["status"], told["code"], told["key_name"]) == (429, "rate_limit_exceeded", "destek-web")
    assert told["cost"] == "0.00009"
    assert told["at"] == "2026-09-10T03:26:40.123456+03:00"
    wait, higher = told["changes"]
    assert [(move["unit"], move["before"], move["after"]) for move in wait["moves"]] == [("us", "0", "1200000")]
    assert [(move["scope"], move["unit"], move["after"]) for move in higher["moves"]] == [
        ("tenant", "requests", "61"),
        ("key", "requests", "61"),
    ]


def test_the_api_gives_budgets_in_dollars(client, cast, key):
    found = decisions.Decision(
        str(cast.acme.pk), key.pk, AT, "insufficient_quota", "tenant", "budget", 1000, 900, 123_100, -1
    )
    client.force_login(cast.owner)
    text = decisions.issue(refusals.secret(), found)
    [change] = client.get(f"/api/v1/t/acme/refusals/{text}/").json()["changes"]
    assert [(move["unit"], move["before"], move["after"]) for move in change["moves"]] == [
        ("usd", "0.000001", "0.000124")
    ]


def test_the_api_gives_strangers_404(client, cast, decision):
    client.force_login(cast.outsider)
    for path in ("/api/v1/t/acme/refusals/", f"/api/v1/t/acme/refusals/{decision}/"):
        assert client.get(path).status_code == 404
    assert client.get(f"/api/v1/t/globex/refusals/{decision}/").status_code == 404
    client.logout()
    assert client.get("/api/v1/t/acme/refusals/").status_code in (401, 403)


def test_a_key_with_the_scope_usage_reads_its_tenant_s_only(client, cast, key, decision):
    _, text = keys.create(cast.acme, "okur", cast.owner, scopes=["usage"])
    _, other = keys.create(cast.globex, "okur", cast.outsider, scopes=["usage"])
    path = f"/api/v1/t/acme/refusals/{decision}/"
    assert client.get(path, headers={"authorization": f"Bearer {text}"}).status_code == 200
    assert client.get(path, headers={"authorization": f"Bearer {other}"}).status_code == 404
