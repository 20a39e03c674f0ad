"""A key is shown once, stored never, refused once it is revoked."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tenants import keys, keytext
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
