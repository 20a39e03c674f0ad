"""The playground's key: real, of one hour, its person's own, and over with the person's right to call."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.urls import reverse
from django.utils import timezone

from tenants import keys, members, playground
from tenants.models import APIKey, AuditEntry, Member

pytestmark = pytest.mark.journey
ADDRESS = "/t/acme/playground/key/"
API = "/api/v1/t/acme/playground/key/"


@pytest.fixture(autouse=True)
def _counters(redis_url):
    """Each key raises the tenant's epoch."""


@pytest.fixture
def mint(client):
    def post(user, address=ADDRESS):
        if client.session.get("_auth_user_id") != str(user.pk):
            client.force_login(user)
        return client.post(address)

    return post


def test_it_is_a_key_of_one_hour_that_may_call_and_nothing_else(mint, cast):
    answer = mint(cast.developer)
    key = keys.open_(answer.json()["key"])
    assert (key.tenant, key.created_by, key.scopes, key.playground) == (cast.acme, cast.developer, ["inference"], True)
    assert key.expires_at
    assert timedelta(minutes=59) < key.expires_at - timezone.now() <= timedelta(hours=1)
    assert "no-store" in answer.headers["Cache-Control"]


def test_it_is_handed_out_again_while_it_is_good(mint, cast):
    first = mint(cast.engineer).json()
    assert mint(cast.engineer).json() == first
    assert APIKey.objects.count() == 1
    APIKey.objects.update(expires_at=timezone.now() + playground.LEFT - timedelta(seconds=1))
    assert mint(cast.engineer).json()["id"] != first["id"]


def test_a_revoked_one_is_replaced(mint, cast):
    first = mint(cast.engineer).json()
    keys.revoke(APIKey.objects.get(), cast.owner)
    second = mint(cast.engineer).json()
    assert second["id"] != first["id"]
    assert keys.authenticate(first["key"]) is None
    assert keys.authenticate(second["key"])


def test_another_login_gets_another_key_and_nobody_gets_somebody_elses(mint, client, cast):
    first = mint(cast.engineer).json()
    client.logout()
    again = mint(cast.engineer).json()
    client.logout()
    other = mint(cast.owner).json()
    assert len({first["id"], again["id"], other["id"]}) == 3
    assert APIKey.objects.get(pk=other["id"]).created_by == cast.owner


def test_a_text_copied_to_another_persons_session_does_not_open(cast):
    session: dict[str, Any] = {}
    playground.key(cast.acme, cast.engineer, session)
    key, _text = playground.key(cast.acme, cast.owner, dict(session))
    assert key.created_by == cast.owner


@pytest.mark.parametrize(("role", "may"), [(role, role in {"owner", "engineer", "developer"}) for role in Member.Role])
@pytest.mark.parametrize("address", [ADDRESS, API])
def test_who_may_not_call_gets_none(mint, cast, role, may, address):
    answer = mint(getattr(cast, role), address)
    assert answer.status_code == ((201 if address == API else 200) if may else 403)
    assert APIKey.objects.exists() == may


def test_a_stranger_finds_nothing_and_a_key_gets_no_key(mint, client, cast):
    assert mint(cast.outsider).status_code == 404
    assert mint(cast.outsider, API).status_code == 404
    client.logout()
    assert client.post(ADDRESS).status_code == 302
    _, text = keys.create(cast.acme, "m", scopes=["manage"])
    assert client.post(API, headers={"Authorization": f"Bearer {text}"}).status_code == 403
    assert not APIKey.objects.filter(playground=True).exists()


def test_reading_the_page_makes_no_key(client, cast):
    client.force_login(cast.engineer)
    assert client.get(reverse("playground", args=["acme"])).status_code == 200
    assert client.get(ADDRESS).status_code == 405
    assert not APIKey.objects.exists()


def test_its_text_is_nowhere_but_in_the_answer(mint, client, cast, caplog):
    caplog.set_level(logging.DEBUG)
    text = mint(cast.engineer).json()["key"]
    secret = text.split("_")[3]
    assert secret not in caplog.text
    assert secret not in str(list(APIKey.objects.values())) + str(list(AuditEntry.objects.values()))
    held = Session.objects.get().get_decoded()
    assert secret not in str(held)
    for name in ("settings", "playground", "audit"):
        assert secret not in client.get(reverse(name, args=["acme"])).text


def test_it_stands_marked_on_the_keys_page_and_can_be_revoked_but_not_changed(mint, client, cast):
    key_id = mint(cast.engineer).json()["id"]
    client.force_login(cast.owner)
    page = client.get(reverse("settings", args=["acme"])).text
    assert key_id in page
    assert 'class="tag">deneme' in page or 'class="tag">playground' in page
    assert f"revoke-{key_id}" in page
    assert f"rotate-{key_id}" not in page
    key = APIKey.objects.get()
    with pytest.raises(keys.Ended):
        keys.rotate(key, cast.owner, timedelta(0))
    with pytest.raises(keys.Ended):
        keys.change(key, cast.owner, expires_at=None)
    assert client.post(reverse("key_revoke", args=["acme", key_id])).status_code == 302
    assert not APIKey.objects.live().exists()


def test_one_that_is_over_is_not_listed_and_an_ordinary_one_is(mint, client, cast):
    over = mint(cast.engineer).json()["id"]
    ordinary, _ = keys.create(cast.acme, "web", cast.owner)
    keys.revoke(ordinary, cast.owner)
    APIKey.objects.filter(pk=over).update(expires_at=timezone.now())
    page = client.get(reverse("settings", args=["acme"])).text
    assert over not in page
    assert ordinary.pk in page
    assert [row["id"] for row in client.get("/api/v1/t/acme/keys/").json()["results"]] == [ordinary.pk]


def test_it_ends_with_the_right_to_call(mint, cast):
    text = mint(cast.engineer).json()["key"]
    member = cast.acme.members.get(user=cast.engineer)
    members.set_role(member, "developer", cast.owner)
    assert keys.authenticate(text)  # may still call
    members.set_role(member, "auditor", cast.owner)
    assert keys.authenticate(text) is None
    assert mint(cast.engineer).status_code == 403


def test_it_ends_with_the_membership_and_other_keys_stay(mint, cast):
    text = mint(cast.developer).json()["key"]
    _, ordinary = keys.create(cast.acme, "web", cast.developer)
    members.remove(cast.acme.members.get(user=cast.developer), cast.owner)
    assert keys.authenticate(text) is None
    assert keys.authenticate(ordinary)
    assert AuditEntry.objects.filter(action="key.revoke", actor=cast.owner).count() == 1
