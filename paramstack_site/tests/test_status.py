"""Is it me or the engine: each thing that can be wrong is said, on the right side, and what to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from inference.models import Replica, Residence
from paramstack_site import readiness, status
from tenants import keys, limits, metering
from tenants.ledger.writer import Writer
from tenants.models import LedgerHead, RefusalCount, Tenant
from tenants.tests import usage

pytestmark = pytest.mark.journey


@pytest.fixture
def answers(monkeypatch, settings):
    """What the gateway answers; it is well."""
    found: dict[str, Any] = {"/v1/models": 401}
    monkeypatch.setattr(readiness, "status", lambda url: next(found[end] for end in found if url.endswith(end)))
    return found


@pytest.fixture
def well(cast, redis_url, answers):
    """Everything runs: counters with a mark, a writer with a lease, a key."""
    writer = Writer("test")
    writer.drain()
    LedgerHead.objects.update(lease_until=timezone.now() + timedelta(minutes=1))
    keys.create(cast.acme, "web", cast.owner)
    replica()
    return cast


def kinds(found: status.Status) -> dict[str, str]:
    return {finding.name: finding.kind for finding in found.findings}


def finding(found: status.Status, name: str) -> status.Finding:
    return next(each for each in found.findings if each.name == name)


def test_all_is_well(well):
    found = status.read(well.acme)
    assert set(kinds(found).values()) == {"live"}
    assert found.verdict == "well"
    assert [each.name for each in found.ours] == ["Engine", "Gateway", "Limits and counters", "Ledger"]
    assert [each.name for each in found.yours] == ["Organisation", "Budget", "Limits", "Keys"]


def replica(name: str = "gpu-1", **facts: Any) -> Replica:
    """A replica that is well and looked after."""
    return Replica.objects.create(
        name=name, url="http://127.0.0.1:1", **({"state": "well", "seen_at": timezone.now()} | facts)
    )


LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("others", "kind", "verdict"),
    [
        ([], "failed", "ours"),
        ([{"state": "away"}], "failed", "ours"),
        ([{"state": "strange"}], "failed", "ours"),
        ([{"seen_at": LONG_AGO}], "unknown", "unknown"),
        ([{}, {"state": "away"}], "warn", "near"),
        ([{}, {"seen_at": LONG_AGO}], "warn", "near"),
        ([{}, {"draining": True}], "live", "well"),
    ],
)
def test_engines_are_ours(well, others, kind, verdict):
    Replica.objects.all().delete()
    for number, facts in enumerate(others):
        replica(f"gpu-{number}", **facts)
    found = status.read(well.acme)
    assert (kinds(found)["Engine"], found.verdict) == (kind, verdict)


def test_an_adapter_that_answers_nowhere_is_ours(well, furnished):
    Replica.objects.update(seen_at=timezone.now())
    assert status.read(well.acme).verdict == "well"
    Residence.objects.update(state="failed")
    found = status.read(well.acme)
    assert (kinds(found)["Adapters"], found.verdict) == ("failed", "ours")
    assert "destek-v1" in finding(found, "Adapters").sentence


@pytest.mark.parametrize("said", [None, 200, 500])
def test_a_gateway_that_does_not_turn_strangers_away_is_ours(well, answers, said):
    answers["/v1/models"] = said
    found = status.read(well.acme)
    assert (kinds(found)["Gateway"], found.verdict) == ("failed", "ours")


def test_counters_that_are_away_are_ours_and_what_they_know_is_unknown(well, settings):
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    found = status.read(well.acme)
    assert found.verdict == "ours"
    assert kinds(found)["Limits and counters"] == "failed"
    assert kinds(found)["Ledger"] == kinds(found)["Budget"] == kinds(found)["Limits"] == "unknown"


def test_counters_nobody_vouches_for_are_ours(well):
    from tenants import counters

    counters.connect().hset(metering.STATE, "mark", "another:1")
    found = status.read(well.acme)
    assert (found.verdict, kinds(found)["Limits and counters"]) == ("ours", "failed")


def test_a_ledger_nobody_writes_is_ours(well):
    LedgerHead.objects.update(lease_until=None)
    found = status.read(well.acme)
    assert (found.verdict, kinds(found)["Ledger"]) == ("ours", "failed")


def test_a_budget_that_is_used_up_is_yours(well):
    limits.set_budget(well.acme, 0, well.owner)
    found = status.read(well.acme)
    assert (found.verdict, kinds(found)["Budget"]) == ("yours", "failed")
    assert finding(found, "Budget").url == reverse("limits", args=["acme"])


def test_a_suspended_organisation_and_a_dead_engine_are_both(well):
    Tenant.objects.filter(pk=well.acme.pk).update(status="suspended")
    well.acme.refresh_from_db()
    Replica.objects.update(state="away")
    assert status.read(well.acme).verdict == "both"


def test_a_limit_of_zero_is_yours_and_no_key_is_worth_a_look(well):
    limits.set_quota(well.acme, well.owner, requests_per_minute=0)
    assert kinds(status.read(well.acme))["Limits"] == "failed"
    for key in well.acme.api_keys.all():
        keys.revoke(key, well.owner)
    assert kinds(status.read(well.acme))["Keys"] == "warn"


def test_a_key_that_ends_soon_is_named(well):
    keys.create(well.acme, "mobil", well.owner, expires_at=timezone.now() + timedelta(days=2))
    found = finding(status.read(well.acme), "Keys")
    assert found.kind == "warn"
    assert "mobil" in found.sentence


def test_failed_calls_of_the_hour_are_told_apart(well):
    key = well.acme.api_keys.get()
    ends = [("blocked", "pii"), ("aborted", "engine_failed"), ("aborted", "engine_failed"), ("settled", "")]
    now = timezone.now()
    facts = [{"status": state, "reason": reason} for state, reason in ends]
    usage.book([usage.call(well.acme, key, now - timedelta(minutes=n), n, **each) for n, each in enumerate(facts)])
    usage.book([usage.call(well.acme, key, now - timedelta(hours=2), 9, status="aborted", reason="engine_failed")])
    minute = now.replace(second=0, microsecond=0)
    RefusalCount.objects.create(tenant=well.acme, key_id=key.pk, minute=minute, limit="tokens_per_minute", count=5)
    found = status.read(well.acme)
    assert {cause.name: n for cause, n in found.failed} == {"limits": 5, "guardrails": 1, "engine": 2}
    assert (found.calls, found.failed_yours, found.failed_ours) == (4, 6, 2)


@pytest.mark.parametrize("role", ["owner", "engineer", "developer", "reviewer", "auditor", "operator"])
def test_everybody_of_the_tenant_reads_it_and_nobody_else(client, well, role):
    address = reverse("status", args=["acme"])
    client.force_login(getattr(well, role))
    assert client.get(address).status_code == 200
    part = client.get(address, headers={"HX-Request": "true"})
    assert "<html" not in part.text
    told = client.get("/api/v1/t/acme/status/").json()
    assert told["verdict"] == "well"
    assert {row["side"] for row in told["findings"]} == {"yours", "ours"}
    client.force_login(well.outsider)
    assert client.get(address).status_code == 404
    assert client.get("/api/v1/t/acme/status/").status_code == 404


def test_it_asks_few_questions(client, well, django_assert_max_num_queries):
    client.force_login(well.auditor)
    with django_assert_max_num_queries(16):
        client.get(reverse("status", args=["acme"]))
