"""A key is shown once, stored never, refused once it is revoked."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tenants import keys, keytext, limits, tenancy
from tenants.models import APIKey, AuditEntry

pytestmark = pytest.mark.django_db


def test_the_text_opens_the_key_and_is_stored_nowhere(cast):
    key, text = keys.create(cast.acme, "build", cast.owner)
    key_id, secret = keys.parse(text)
    assert key_id == key.pk
    assert keys.matches(key.salt, key.digest, secret)
    assert not keys.matches(key.salt, key.digest, secret[::-1])
    stored = str(APIKey.objects.values().get()) + str(list(AuditEntry.objects.values()))
    assert secret not in stored
    assert keys.authenticate(text) == key


def test_two_keys_are_never_alike(cast):
    texts = {keys.create(cast.acme, "x")[1] for _ in range(50)}
    assert len(texts) == 50


def test_every_mistyped_character_is_noticed():
    text = keytext.write(*keytext.generate())
    for place in range(len(text)):
        wrong = text[:place] + ("x" if text[place] != "x" else "y") + text[place + 1 :]
        with pytest.raises(keys.Malformed):
            keys.parse(wrong)
    for nonsense in ("", text[:-1], text + "0", f" {text}", text.upper(), "sk-" + text, text + "\n"):
        with pytest.raises(keys.Malformed):
            keys.parse(nonsense)


def test_what_does_not_authenticate(cast):
    key, text = keys.create(cast.acme, "x", cast.owner)
    assert keys.authenticate(keytext.write(key.pk, keytext.generate()[1])) is None
    assert keys.authenticate(keytext.write(*keytext.generate())) is None
    assert keys.authenticate("?") is None
    APIKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert keys.authenticate(text) is None
    APIKey.objects.update(expires_at=timezone.now() + timedelta(hours=1))
    assert keys.authenticate(text) == key
    keys.revoke(key, cast.owner)
    assert keys.authenticate(text) is None


def test_revoking_twice_is_one_entry_and_one_epoch(cast):
    key, _ = keys.create(cast.acme, "x")
    before = cast.acme.epoch
    for _ in range(2):
        keys.revoke(APIKey.objects.get(pk=key.pk), cast.owner)
    cast.acme.refresh_from_db()
    assert cast.acme.epoch == before + 1
    assert AuditEntry.objects.filter(action="key.revoke", actor=cast.owner, tenant=cast.acme).count() == 1


@pytest.mark.parametrize("scopes", [[], ["root"], ["usage", "root"]])
def test_a_scope_that_does_not_exist_makes_no_key(cast, scopes):
    with pytest.raises(keys.UnknownScope):
        keys.create(cast.acme, "x", scopes=scopes)
    assert not APIKey.objects.exists()


def test_a_new_key_reaches_the_gateways_and_the_log(cast):
    before = cast.acme.epoch
    end = timezone.now() + timedelta(days=9)
    wanted = ["destek", "destek"]
    key, text = keys.create(
        cast.acme,
        " build ",
        cast.owner,
        ["usage", "inference"],
        allowed_models=wanted,
        expires_at=end,
        default_max_tokens=7,
    )
    stored = APIKey.objects.get()
    assert (stored.name, stored.allowed_models, stored.default_max_tokens) == ("build", ["destek"], 7)
    assert stored.scopes == ["inference", "usage"]
    cast.acme.refresh_from_db()
    assert cast.acme.epoch == before + 1
    entry = AuditEntry.objects.get(action="key.create")
    assert entry.before is None
    assert (entry.after or {})["expires_at"] == end.isoformat()
    assert keytext.parse(text)[1] not in str(entry.after)
    assert keys.authenticate(text) == key


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("expires_at", timezone.now() - timedelta(seconds=1)),
        ("default_max_tokens", 0),
        ("default_max_tokens", 1_000_001),
        ("default_max_tokens", True),
        ("allowed_models", ["m"] * 2 + [""]),
        ("allowed_models", [f"m{n}" for n in range(101)]),
    ],
)
def test_settings_that_no_key_can_have(cast, field, wrong):
    with pytest.raises(keys.BadSetting) as error:
        keys.create(cast.acme, "x", **{field: wrong})
    assert error.value.field == field
    key, _ = keys.create(cast.acme, "x")
    with pytest.raises(keys.BadSetting):
        keys.change(key, cast.owner, **{field: wrong})


def test_a_rotated_key_works_until_its_grace_is_over(cast):
    old, old_text = keys.create(cast.acme, "build", cast.owner, ["inference"], allowed_models=["m"])
    limits.set_quota(cast.acme, cast.owner, key=old, requests_per_minute=5)
    fresh, fresh_text = keys.rotate(old, cast.engineer, timedelta(hours=1))
    assert fresh.rotated_from == old
    assert (fresh.name, fresh.scopes, fresh.allowed_models) == (old.name, old.scopes, old.allowed_models)
    assert fresh.quota.requests_per_minute == 5
    assert keys.authenticate(old_text) == old
    assert keys.authenticate(fresh_text) == fresh
    assert {key.pk for key in APIKey.objects.live()} == {old.pk, fresh.pk}
    APIKey.objects.filter(pk=old.pk).update(revoked_at=timezone.now() - timedelta(seconds=1))
    assert keys.authenticate(old_text) is None
    assert keys.authenticate(fresh_text) == fresh
    entry = AuditEntry.objects.get(action="key.rotate")
    assert (entry.before or {})["revoked_at"] is None
    assert (entry.after or {})["successor"] == fresh.pk


def test_a_key_in_grace_can_be_revoked_at_once_and_rotated_no_more(cast):
    old, text = keys.create(cast.acme, "x")
    fresh, _ = keys.rotate(old, None, timedelta(days=30))
    with pytest.raises(keys.Ended, match="replaced"):
        keys.rotate(APIKey.objects.get(pk=old.pk), None, timedelta(0))
    keys.revoke(APIKey.objects.get(pk=old.pk), cast.owner)
    assert keys.authenticate(text) is None
    keys.revoke(fresh, cast.owner)
    with pytest.raises(keys.Ended, match="revoked"):
        keys.rotate(fresh, None, timedelta(0))
    with pytest.raises(keys.Ended):
        keys.change(fresh, None, name="y")


@pytest.mark.parametrize("grace", [timedelta(seconds=-1), timedelta(days=30, seconds=1)])
def test_a_grace_is_bounded(cast, grace):
    key, _ = keys.create(cast.acme, "x")
    with pytest.raises(keys.BadSetting):
        keys.rotate(key, None, grace)
    assert APIKey.objects.get().revoked_at is None


def test_without_grace_the_old_key_ends_now(cast):
    key, text = keys.create(cast.acme, "x")
    keys.rotate(key, None, timedelta(0))
    assert keys.authenticate(text) is None


def test_a_change_is_one_entry_and_none_if_nothing_changed(cast):
    key, _ = keys.create(cast.acme, "x")
    for _again in range(2):
        keys.change(key, cast.owner, name="y", allowed_models=["m"])
    entry = AuditEntry.objects.get(action="key.change")
    assert ((entry.before or {})["name"], (entry.after or {})["name"]) == ("x", "y")


def test_what_a_key_cannot_do_is_said_only_to_who_has_it(cast):
    key, text = keys.create(cast.acme, "x")
    APIKey.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(keys.NotOpen, match="expired"):
        keys.open_(text)
    with pytest.raises(keys.NotOpen, match="unknown"):
        keys.open_(keytext.write(key.pk, keytext.generate()[1]))
    APIKey.objects.update(expires_at=None)
    tenancy.suspend(cast.acme, cast.operator)
    with pytest.raises(keys.NotOpen, match="not active"):
        keys.open_(text)
