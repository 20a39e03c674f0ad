"""Pages of keys: shown once, made within a role's rights, limited, replaced, revoked."""

import re
from datetime import timedelta

import pytest
from django.apps import apps
from django.urls import reverse
from django.utils import timezone

from tenants import costs, keys
from tenants.models import APIKey, Quota, UsageDay

pytestmark = [pytest.mark.django_db, pytest.mark.journey]
TEXT = re.compile(r"ps_live_[a-z2-7]{12}_[a-z2-7]{32}_[0-9a-f]{8}")
NEW = {"name": "mobil", "scopes": ["inference"], "default_max_tokens": "1024"}


@pytest.fixture(autouse=True)
def english(cast):
    for person in (cast.owner, cast.engineer, cast.developer, cast.reviewer, cast.auditor, cast.outsider):
        person.language = "en"
        person.save()


@pytest.fixture
def key(cast):
    return keys.create(cast.acme, "web", cast.owner)[0]


def page(name, *ids):
    return reverse(name, args=["acme", *ids])


def test_the_text_is_shown_in_one_answer_with_snippets_that_work(client, cast):
    cast.acme.aliases.create(name="destek", base=_base())
    client.force_login(cast.developer)
    answer = client.post(page("key_create"), NEW)
    assert answer.status_code == 200
    assert "no-store" in answer.headers["Cache-Control"]
    secret = set(TEXT.findall(answer.text))
    assert len(secret) == 1
    made = APIKey.objects.get()
    assert keys.authenticate(secret.pop()) == made
    assert "http://testserver/v1/chat/completions" in answer.text
    assert answer.text.count("destek") >= 3  # curl, openai, langchain
    assert "ChatOpenAI" in answer.text
    for name, ids in (("settings", ()), ("key", (made.pk,))):
        assert not TEXT.search(client.get(page(name, *ids)).text)


def _base():
    return apps.get_model("inference", "BaseModel").objects.get_or_create(name="demo-base")[0]


def test_models_limits_and_expiry_are_kept(client, cast):
    _base()
    client.force_login(cast.owner)
    day = costs.today(cast.acme) + timedelta(days=3)
    wanted = NEW | {"allowed_models": ["demo-base"], "expires_at": day.isoformat(), "default_max_tokens": "2,048"}
    answer = client.post(page("key_create"), wanted | {"requests_per_minute": "1,200", "concurrent_calls": ""})
    assert answer.status_code == 200, answer.context["form"].errors
    made = APIKey.objects.get()
    assert (made.allowed_models, made.default_max_tokens) == (["demo-base"], 2048)
    assert made.expires_at is not None
    assert costs.today(cast.acme, made.expires_at - timedelta(seconds=1)) == day
    assert costs.today(cast.acme, made.expires_at) == day + timedelta(days=1)
    assert (made.quota.requests_per_minute, made.quota.concurrent_calls) == (1200, None)
    shown = client.get(page("settings")).text
    assert "1,200 requests/min" in shown
    assert "demo-base" in shown


BAD = [
    ({"name": ""}, "name"),
    ({"scopes": []}, "scopes"),
    ({"allowed_models": ["of-somebody-else"]}, "allowed_models"),
    ({"expires_at": "2020-01-01"}, "expires_at"),
    ({"expires_at": "soon"}, "expires_at"),
    ({"default_max_tokens": "0"}, "default_max_tokens"),
    ({"requests_per_minute": "-1"}, "requests_per_minute"),
    ({"requests_per_minute": "1e9"}, "requests_per_minute"),
    ({"tokens_per_minute": "99999999999999999999"}, "tokens_per_minute"),
    ({"concurrent_calls": "many"}, "concurrent_calls"),
]


@pytest.mark.parametrize(("wrong", "field"), BAD)
def test_bad_input_is_explained_under_its_field_and_what_was_typed_stays(client, cast, wrong, field):
    client.force_login(cast.owner)
    answer = client.post(page("key_create"), NEW | {"tokens_per_second": "77"} | wrong)
    assert answer.status_code == 422
    assert list(answer.context["form"].errors) == [field]
    assert 'value="77"' in answer.text
    if isinstance(wrong[field], str) and wrong[field]:
        assert f'value="{wrong[field]}"' in answer.text
    assert not APIKey.objects.exists()
    assert not Quota.objects.exclude(key=None).exists()


def test_a_developer_neither_makes_nor_replaces_a_key_that_manages(client, cast):
    client.force_login(cast.developer)
    answer = client.post(page("key_create"), NEW | {"scopes": ["inference", "manage"]})
    assert answer.status_code == 422
    managing = keys.create(cast.acme, "ci", cast.owner, ["manage"])[0]
    assert client.post(page("key_rotate", managing.pk), {"grace": "24"}).status_code == 403
    assert not APIKey.objects.filter(rotated_from=managing).exists()


@pytest.mark.parametrize("role", ["reviewer", "auditor"])
def test_who_may_not_make_keys_reads_and_changes_nothing(client, cast, key, role):
    client.force_login(getattr(cast, role))
    assert "web" in client.get(page("settings")).text
    assert client.get(page("key", key.pk)).status_code == 200
    assert client.get(page("key_create")).status_code == 403
    for verb in ("key_rotate", "key_revoke", "key_limits"):
        assert client.post(page(verb, key.pk), {"grace": "0"}).status_code == 403
    shown = client.get(page("settings")).text + client.get(page("key", key.pk)).text
    assert 'popovertarget="revoke-' not in shown
    key.refresh_from_db()
    assert key.revoked_at is None


def test_a_stranger_finds_no_key_and_an_own_page_no_foreign_one(client, cast, key):
    client.force_login(cast.outsider)
    for verb in ("key", "key_rotate", "key_revoke", "key_limits"):
        assert client.get(page(verb, key.pk)).status_code == 404
        assert client.post(page(verb, key.pk)).status_code == 404
        assert client.post(reverse(verb, args=["globex", key.pk])).status_code in {404, 405}
    key.refresh_from_db()
    assert key.revoked_at is None


@pytest.mark.parametrize("hours", [0, 24, 168, 720])
def test_replacing_shows_the_new_text_and_when_the_old_one_ends(client, cast, key, hours):
    client.force_login(cast.developer)
    answer = client.post(page("key_rotate", key.pk), {"grace": str(hours)})
    assert len(set(TEXT.findall(answer.text))) == 1
    assert "no-store" in answer.headers["Cache-Control"]
    key.refresh_from_db()
    left = key.revoked_at - timezone.now()
    assert timedelta(hours=hours) - timedelta(minutes=1) < left <= timedelta(hours=hours)
    assert ("works until" if hours else "has ended") in answer.text
    assert ("Being replaced" if hours else "Revoked") in client.get(page("key", key.pk)).text


def test_a_key_is_replaced_once_and_a_wrong_grace_replaces_nothing(client, cast, key):
    client.force_login(cast.owner)
    assert client.post(page("key_rotate", key.pk), {"grace": "9999"}).status_code == 302
    assert APIKey.objects.count() == 1
    client.post(page("key_rotate", key.pk), {"grace": "24"})
    again = client.post(page("key_rotate", key.pk), {"grace": "24"}, follow=True)
    assert 'role="alert"' in again.text
    assert APIKey.objects.count() == 2


def test_reading_the_address_of_a_verb_leads_to_the_page(client, cast, key):
    """After a change of language the browser asks again for where it is."""
    client.force_login(cast.owner)
    assert client.get(page("key_rotate", key.pk)).url == page("key", key.pk)
    assert client.get(page("key_create")).status_code == 200


def test_revoking_ends_it(client, cast, key):
    client.force_login(cast.developer)
    answer = client.post(page("key_revoke", key.pk), follow=True)
    assert "web is revoked" in answer.text
    assert not APIKey.objects.live().exists()
    assert 'id="revoke-' not in answer.text


def test_states(cast, key):
    from tenants.views.keys import state

    now = timezone.now()
    assert state(key) == "live"
    assert state(APIKey(expires_at=now + timedelta(days=6))) == "ending"
    assert state(APIKey(expires_at=now + timedelta(days=8))) == "live"
    assert state(APIKey(expires_at=now)) == "expired"
    assert state(APIKey(revoked_at=now + timedelta(hours=1))) == "grace"
    assert state(APIKey(revoked_at=now)) == "revoked"


def test_a_key_has_limits_of_its_own_that_change_and_go(client, cast, key):
    client.force_login(cast.developer)
    client.post(page("key_limits", key.pk), {"requests_per_minute": "5", "tokens_per_minute": "100"})
    assert Quota.objects.get(key=key).requests_per_minute == 5
    client.post(page("key_limits", key.pk), {"requests_per_minute": "", "tokens_per_minute": "100"})
    quota = Quota.objects.get(key=key)
    assert (quota.requests_per_minute, quota.tokens_per_minute) == (None, 100)
    wrong = client.post(page("key_limits", key.pk), {"requests_per_minute": "-5", "tokens_per_minute": "7"})
    assert wrong.status_code == 422
    assert 'value="-5"' in wrong.text
    assert Quota.objects.get(key=key).tokens_per_minute == 100
    strong, _ = keys.create(cast.acme, "strong", cast.owner, ["manage"])
    assert client.post(page("key_limits", strong.pk), {"tokens_per_minute": "1"}).status_code == 403
    assert not Quota.objects.filter(key=strong).exists()


def test_a_day_after_the_calendars_last_keeps_what_was_typed(client, cast):
    client.force_login(cast.owner)
    answer = client.post(page("key_create"), NEW | {"expires_at": "9999-12-31"})
    assert answer.status_code == 422
    assert "Choose an earlier day" in answer.text
    assert 'value="9999-12-31"' in answer.text


def test_its_use_this_month_is_its_own(client, cast, key):
    other = keys.create(cast.acme, "mobil")[0]
    day = costs.today(cast.acme)
    facts = {"tenant": cast.acme, "day": day, "served": "x", "calls": 3, "input_tokens": 10, "output_tokens": 20}
    UsageDay.objects.create(key_id=key.pk, model="destek", cost_nano=5_000_000_000, **facts)
    UsageDay.objects.create(key_id=key.pk, model="demo-base", cost_nano=1_000_000_000, **facts)
    UsageDay.objects.create(key_id=other.pk, model="destek", cost_nano=7_000_000_000, **facts)
    client.force_login(cast.auditor)
    shown = client.get(page("key", key.pk))
    assert shown.context["used"]["spent"] == 6_000_000_000
    assert [row["model"] for row in shown.context["used"]["models"]] == ["destek", "demo-base"]
    assert "$6.00" in shown.text


def test_the_live_part_comes_alone(client, cast, key, settings):
    settings.REDIS_URL = "unix:///nonexistent/redis.sock"
    client.force_login(cast.auditor)
    fragment = client.get(page("key", key.pk), headers={"HX-Request": "true"})
    assert fragment.text.lstrip().startswith('<div id="levels"')
    assert "The counters do not answer" in fragment.text
