"""The page of the tenant: an owner names it, an operator ends it, its webhook's secret is shown once."""

import pytest
from django.urls import reverse

from tenants.models import APIKey, AuditEntry, BudgetAlert, Tenant, User, Webhook
from tenants.notices import outbound

pytestmark = [pytest.mark.django_db, pytest.mark.journey]
PAGE = "/t/acme/settings/tenant/"
HOOK = "https://example.com/hooks"


@pytest.fixture(autouse=True)
def english(cast):
    User.objects.update(language="en")
    for person in (cast.owner, cast.engineer, cast.outsider, cast.auditor, cast.operator):
        person.language = "en"


def page(name):
    return reverse(name, args=["acme"])


def test_an_owner_renames_it_and_moves_its_days(client, cast):
    client.force_login(cast.owner)
    assert client.post(PAGE, {"name": "Acme Türkiye", "time_zone": "Asia/Tokyo"}).url == PAGE
    cast.acme.refresh_from_db()
    assert (cast.acme.name, cast.acme.time_zone, cast.acme.slug) == ("Acme Türkiye", "Asia/Tokyo", "acme")
    assert AuditEntry.objects.filter(tenant=cast.acme, action="tenant.change").count() == 2


@pytest.mark.parametrize("wrong", [{"name": ""}, {"name": "x" * 121}, {"time_zone": "Mars/Olympus"}, {"time_zone": ""}])
def test_what_no_tenant_can_be_is_explained_and_nothing_changes(client, cast, wrong):
    client.force_login(cast.owner)
    answer = client.post(PAGE, {"name": "Başka", "time_zone": "Asia/Tokyo"} | wrong)
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == list(wrong)
    if "time_zone" in wrong:
        assert 'value="Başka"' in answer.text
    cast.acme.refresh_from_db()
    assert (cast.acme.name, cast.acme.time_zone) == ("Acme", "Europe/Istanbul")


def test_an_operator_suspends_resumes_and_closes(client, cast):
    client.force_login(cast.operator)
    client.post(page("tenant_status"), {"verb": "suspend"})
    client.force_login(cast.auditor)
    assert "This tenant is suspended" in client.get(PAGE).text
    client.force_login(cast.operator)
    again = client.post(page("tenant_status"), {"verb": "suspend"}, follow=True)
    assert again.status_code == 200
    client.post(page("tenant_status"), {"verb": "resume"})
    assert Tenant.objects.get(slug="acme").status == "active"
    assert client.post(page("tenant_status"), {"verb": "close"}).url == "/"
    assert client.get(PAGE).status_code == 404
    assert not APIKey.objects.live().exists()


@pytest.mark.parametrize("role", ["owner", "engineer", "developer", "reviewer", "auditor"])
def test_nobody_else_does(client, cast, role):
    client.force_login(getattr(cast, role))
    for verb in ("suspend", "resume", "close", "delete", ""):
        assert client.post(page("tenant_status"), {"verb": verb}).status_code == 403
    assert page("tenant_status") not in client.get(PAGE).text


@pytest.mark.parametrize("role", ["engineer", "developer", "reviewer", "auditor"])
def test_others_read_it_and_change_nothing(client, cast, role):
    client.force_login(getattr(cast, role))
    assert "Europe/Istanbul" in client.get(PAGE).text
    assert client.post(PAGE, {"name": "x", "time_zone": "UTC"}).status_code == 403
    for verb in ("webhook_set", "webhook_test", "webhook_remove"):
        assert client.post(page(verb), {"url": HOOK}).status_code == 403
    assert not Webhook.objects.exists()


def test_a_stranger_finds_nothing(client, cast):
    client.force_login(cast.outsider)
    assert client.get(PAGE).status_code == 404
    for verb in ("tenant", "tenant_status", "webhook_set", "webhook_test", "webhook_remove"):
        assert client.post(page(verb), {"url": HOOK, "verb": "close"}).status_code == 404


def test_a_webhooks_secret_is_shown_once(client, cast):
    client.force_login(cast.owner)
    answer = client.post(page("webhook_set"), {"url": HOOK})
    assert "whsec_" in answer.text
    assert "no-store" in answer.headers["Cache-Control"]
    shown = client.get(PAGE).text
    assert HOOK in shown
    assert "whsec_" not in shown
    assert client.get(page("webhook_set")).url == PAGE


@pytest.mark.parametrize(
    "wrong", ["", "http://example.com/x", "https://10.0.0.1/x", "nonsense", "https://" + "x" * 400]
)
def test_an_address_that_cannot_be_posted_to_is_refused_under_its_field(client, cast, wrong):
    client.force_login(cast.owner)
    answer = client.post(page("webhook_set"), {"url": wrong})
    assert answer.status_code == 422
    assert answer.context["hook_form"].errors["url"]
    assert f'value="{wrong}"' in answer.text or not wrong
    assert not Webhook.objects.exists()


def test_a_test_says_what_came_back(client, cast, monkeypatch):
    client.force_login(cast.owner)
    assert "no webhook" in client.post(page("webhook_test"), follow=True).text
    client.post(page("webhook_set"), {"url": HOOK})
    posted = []

    def accept(url, body, headers):
        posted.append((url, headers))
        return 204

    monkeypatch.setattr(outbound, "post", accept)
    assert "answered 204" in client.post(page("webhook_test"), follow=True).text
    assert posted[0][0] == HOOK
    assert posted[0][1]["webhook-signature"].startswith("v1,")

    def refuse(url, body, headers):
        raise outbound.Failed("the address answered 503")

    monkeypatch.setattr(outbound, "post", refuse)
    answer = client.post(page("webhook_test"), follow=True).text
    assert "not delivered" in answer
    assert "503" in answer


def test_it_is_removed(client, cast):
    client.force_login(cast.owner)
    client.post(page("webhook_set"), {"url": HOOK})
    assert "is removed" in client.post(page("webhook_remove"), follow=True).text
    assert not Webhook.objects.exists()
    assert "no webhook" in client.post(page("webhook_remove"), follow=True).text


def test_alerts_show_what_became_of_them(client, cast):
    facts = {"tenant": cast.acme, "month": "202611", "spent_nano": 81_000_000_000, "budget_nano": 100_000_000_000}
    BudgetAlert.objects.create(percent=80, problem="Webhook: it answered 503", due_at=None, **facts)
    client.force_login(cast.auditor)
    text = client.get(PAGE).text
    for words in ("80%", "$81.00", "Not delivered", "it answered 503"):
        assert words in text
