"""The books on the overview: a proof that is old or missing is unknown, and a budget near its end is said first."""

from datetime import timedelta

import pytest
from django.utils import timezone, translation

from inference.models import EngineReading, Replica
from paramstack_site import books
from tenants import costs
from tenants.models import Budget, LedgerProof, RefusalCount, Tenant, UsageMonth

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def english(cast, settings):
    settings.ENGINE_URL = "http://127.0.0.1:1"
    cast.auditor.language = "en"
    cast.auditor.save()
    with translation.override("en"):
        yield


def proved(minutes, holds=True, nonce="n"):
    at = timezone.now() - timedelta(minutes=minutes)
    return LedgerProof.objects.create(
        nonce=nonce, at=at, position="1-1", tenants=1, open_calls=0, held_nano=0, spent_nano=0, holds=holds
    )


def spend(tenant, nano):
    month = costs.this_month(tenant)
    UsageMonth.objects.create(tenant=tenant, month=month, calls=1, cost_nano=nano)


def test_no_proof_is_unknown():
    assert books.proof().kind == "unknown"


@pytest.mark.parametrize(
    ("minutes", "holds", "kind"),
    [(1, True, "proven"), (31, True, "unknown"), (1, False, "failed"), (60, False, "failed")],
)
def test_the_newest_proof_decides_while_it_is_fresh(minutes, holds, kind):
    proved(200, holds=not holds, nonce="older")
    proved(minutes, holds)
    assert books.proof().kind == kind


@pytest.mark.parametrize(
    ("minutes", "holds", "kind"),
    [(1, True, "proven"), (1, False, "failed"), (600, True, "unknown"), (None, True, "unknown")],
)
def test_what_the_engines_counted_is_proved_while_it_is_fresh(client, cast, minutes, holds, kind):
    Replica.objects.create(name="engine-1", url="http://127.0.0.1:1")
    if minutes:
        at = timezone.now() - timedelta(minutes=minutes)
        pairs = {"counted": [9, 9, 0], "base": [0, 0, 0], "booked": [9, 9], "own": [0, 0]}
        EngineReading.objects.create(
            replica="engine-1", started_at=at, at=at, until=at, row=0, since=at, holds=holds, **pairs
        )
    assert books.engines().kind == kind
    assert ("engine-1" in books.engines().detail) == (minutes == 600 or not holds)
    client.force_login(cast.operator)
    assert client.get("/admin/inference/enginereading/").status_code == 200


def test_refusals_of_the_last_hour_are_this_tenants(cast):
    now = timezone.now()
    for tenant, minutes, count in ((cast.acme, 3, 4), (cast.acme, 59, 5), (cast.acme, 61, 90), (cast.globex, 3, 700)):
        RefusalCount.objects.create(
            tenant=tenant, key_id="k", minute=now - timedelta(minutes=minutes), limit="budget", count=count
        )
    assert books.refused(cast.acme) == 9


@pytest.mark.parametrize(
    ("spent", "tone"),
    [(79_999_999_999, None), (80_000_000_000, "warn"), (100_000_000_000, "bad"), (130_000_000_000, "bad")],
)
def test_a_budget_near_its_end_is_said(cast, spent, tone):
    spend(cast.acme, spent)
    step = books.budget(cast.acme, costs.month(cast.acme))
    assert (step and step.tone) == tone


def test_no_budget_is_said(cast):
    Budget.objects.filter(tenant=cast.acme).delete()
    acme = Tenant.objects.get(pk=cast.acme.pk)
    step = books.budget(acme, costs.month(acme))
    assert step is not None
    assert step.tone == "warn"


def test_the_overview_shows_them_and_a_proof_that_differs_is_no_process_that_is_down(client, cast):
    spend(cast.acme, 90_000_000_000)
    proved(1, holds=False)
    client.force_login(cast.auditor)
    answer = client.get("/t/acme/")
    assert "90% of this month" in answer.text
    assert "Differs" in answer.text
    assert "ledger proof" not in answer.context["down"]
