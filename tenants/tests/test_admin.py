"""Operator pages change through the verbs, say what they refuse, and read history without counting it."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.paginator import InvalidPage
from django.urls import reverse
from django.utils import timezone

from tenants import keys, operating, prices
from tenants.models import NANO, APIKey, AuditEntry, Budget, Member, Price, Quota, Tenant
from tenants.tests.usage import book, call

pytestmark = [pytest.mark.django_db, pytest.mark.journey]
NO_INLINES = {
    f"{name}-{part}": 0 for name in ("members", "quotas", "budget") for part in ("TOTAL_FORMS", "INITIAL_FORMS")
}


@pytest.fixture
def admin(client, cast):
    client.force_login(cast.operator)
    return client


def change(admin: Any, row: Any, body: dict[str, Any]) -> str:
    """Posts a change; answers what the operator is told: the form's errors, else the page's messages."""
    return post(admin, reverse(f"admin:tenants_{row._meta.model_name}_change", args=[row.pk]), body)


def add(admin: Any, name: str, body: dict[str, Any]) -> str:
    return post(admin, reverse(f"admin:tenants_{name}_add"), body)


def post(admin: Any, address: str, body: dict[str, Any]) -> str:
    answer = admin.post(address, body, follow=True)
    assert answer.status_code == 200
    form = answer.context.get("adminform")
    if form and form.form.errors:
        return str(form.form.errors)
    return " ".join(map(str, answer.context["messages"]))


def when(moment: Any, name: str) -> dict[str, str]:
    local = timezone.localtime(moment)
    return {f"{name}_0": f"{local:%Y-%m-%d}", f"{name}_1": f"{local:%H:%M:%S}"}


def test_a_tenant_is_made_moved_and_suspended(admin, cast):
    add(admin, "tenant", {"name": "İzmir", "slug": "izmir", "time_zone": "Europe/Istanbul"} | NO_INLINES)
    made = Tenant.objects.get(slug="izmir")
    body = {"name": "İzmir", "time_zone": "Asia/Tokyo", "status": "suspended"} | NO_INLINES
    change(admin, made, body)
    made.refresh_from_db()
    assert (made.time_zone, made.status) == ("Asia/Tokyo", "suspended")
    actions = list(AuditEntry.objects.filter(tenant=made).values_list("action", flat=True).order_by("pk"))
    assert actions == ["tenant.create", "tenant.change", "tenant.change"]
    assert "Mars" in change(admin, made, body | {"time_zone": "Mars/Olympus"})
    add(admin, "tenant", {"name": "x", "slug": "admin", "time_zone": "Europe/Istanbul"} | NO_INLINES)
    assert Tenant.objects.count() == 3


def test_limits_and_budgets_stay_within_their_bounds(admin, cast):
    quota, budget = Quota.objects.get(tenant=cast.acme), Budget.objects.get(tenant=cast.acme)
    change(admin, quota, {"requests_per_minute": 90})
    assert "10000000" in change(admin, quota, {"requests_per_second": Quota.MOST_PER_SECOND + 1}).replace(".", "")
    assert change(admin, quota, {"requests_per_second": -1})
    quota.refresh_from_db()
    assert (quota.requests_per_minute, quota.requests_per_second) == (90, None)
    assert "9000000000000000" in change(admin, budget, {"monthly_nano": 9_000_001 * NANO}).replace(".", "")
    change(admin, budget, {"monthly_nano": 7})
    assert Budget.objects.get(tenant=cast.acme).monthly_nano == 7
    theirs, _ = keys.create(cast.globex, "g")
    add(admin, "quota", {"tenant": cast.acme.pk, "key": theirs.pk, "requests_per_second": 1})
    assert not Quota.objects.filter(key=theirs).exists()


def test_the_last_owner_stays(admin, cast):
    owner = Member.objects.get(tenant=cast.acme, role="owner")
    assert change(admin, owner, {"role": "auditor"})
    admin.post(reverse("admin:tenants_member_delete", args=[owner.pk]), {"post": "yes"})
    body = {"action": "delete_selected", "_selected_action": [owner.pk], "post": "yes"}
    admin.post(reverse("admin:tenants_member_changelist"), body)
    owner.refresh_from_db()
    assert owner.role == "owner"
    assert not AuditEntry.objects.filter(action__startswith="member").exists()
    add(admin, "member", {"user": cast.outsider.pk, "tenant": cast.acme.pk, "role": "owner"})
    change(admin, owner, {"role": "auditor"})
    assert AuditEntry.objects.filter(action="member.change").count() == 1


def test_prices_follow_one_another_and_do_not_overlap(admin, cast):
    now = timezone.now()
    body = {"model": "m", "kind": "list", "input_nano_per_mtok": 1, "output_nano_per_mtok": 2, "basis": "{}"}
    add(admin, "price", body | when(now + timedelta(days=1), "valid_from"))
    price = Price.objects.get()
    assert add(admin, "price", body | when(now + timedelta(hours=1), "valid_from"))
    assert Price.objects.count() == 1
    change(admin, price, body | when(price.valid_from, "valid_from") | {"input_nano_per_mtok": 9})
    price.refresh_from_db()
    assert price.input_nano_per_mtok == 9
    used = prices.set_("n", None, input_nano_per_mtok=1, output_nano_per_mtok=1)
    change(admin, used, body | {"model": "n", "input_nano_per_mtok": 9} | when(used.valid_from, "valid_from"))
    admin.post(reverse("admin:tenants_price_delete", args=[used.pk]), {"post": "yes"})
    used.refresh_from_db()
    assert used.input_nano_per_mtok == 1


def test_history_is_read_only_and_not_counted(admin, cast, monkeypatch, django_assert_max_num_queries):
    key, _ = keys.create(cast.acme, "x")
    book([call(cast.acme, key, timezone.now(), n) for n in range(30)])
    monkeypatch.setattr(operating, "MOST_COUNTED", 20)
    for name in ("usageevent", "ledgerproof", "refusalcount", "auditentry", "apikey", "invitation"):
        with django_assert_max_num_queries(14):
            assert admin.get(reverse(f"admin:tenants_{name}_changelist")).status_code == 200, name
        assert admin.get(reverse(f"admin:tenants_{name}_add")).status_code == 403
    listed = admin.get(reverse("admin:tenants_usageevent_changelist"))
    assert listed.context["cl"].result_count == 20
    found = admin.get(reverse("admin:tenants_usageevent_changelist"), {"q": "req_acme_7"})
    assert [row.request_id for row in found.context["cl"].result_list] == ["req_acme_7"]
    row = cast.acme.usage.first()
    assert admin.get(reverse("admin:tenants_usageevent_change", args=[row.pk])).status_code == 200
    assert admin.post(reverse("admin:tenants_usageevent_change", args=[row.pk]), {}).status_code == 403
    assert admin.post(reverse("admin:tenants_usageevent_delete", args=[row.pk]), {"post": "yes"}).status_code == 403


def test_a_list_ends_where_it_stops_counting(db, cast, monkeypatch):
    monkeypatch.setattr(operating, "MOST_COUNTED", 2)
    pages = operating.Short(Tenant.objects.order_by("pk"), 1)
    assert pages.count == 2
    with pytest.raises(InvalidPage):
        pages.page(3)


def test_secrets_are_on_no_page(admin, cast):
    key, text = keys.create(cast.acme, "x")
    page = admin.get(reverse("admin:tenants_apikey_change", args=[key.pk])).content.decode()
    stored = APIKey.objects.get()
    assert not any(secret in page for secret in (stored.salt, stored.digest, keys.parse(text)[1]))
