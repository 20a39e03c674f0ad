"""A webhook's address is checked, its secret is shown once and rests encrypted, and a test says what happened."""

from __future__ import annotations

import base64

import pytest

from tenants.models import AuditEntry, Webhook
from tenants.notices import outbound, webhooks


def test_the_secret_is_shown_once_and_rests_encrypted(cast):
    webhook, text = webhooks.set_(cast.acme, " https://example.com/hooks ", cast.owner)
    secret = base64.b64decode(text.removeprefix("whsec_"))
    stored = Webhook.objects.get(tenant=cast.acme)
    assert stored.url == "https://example.com/hooks"
    assert len(secret) == 32
    assert secret not in bytes(stored.secret)
    assert webhooks.unseal(stored) == secret
    entry = AuditEntry.objects.get(action="webhook.set")
    assert (entry.before, entry.after) == (None, {"url": "https://example.com/hooks"})


def test_setting_it_again_makes_another_secret(cast):
    _, first = webhooks.set_(cast.acme, "https://example.com/hooks", cast.owner)
    _, second = webhooks.set_(cast.acme, "https://example.com/other", cast.owner)
    assert first != second
    assert Webhook.objects.get().url == "https://example.com/other"


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://example.com/", "https only"),
        ("https://127.0.0.1/", "public internet only"),
        ("https://[::ffff:10.0.0.1]/", "public internet only"),
        ("https://2130706433/", "public internet only"),
        ("https://localhost:8443/", "public internet only"),
        ("https://example.com:25/", "port 443"),
        ("nonsense", "https only"),
        ("https://", "no address"),
        ("https://example.com/" + "x" * 400, "400 characters"),
    ],
)
def test_a_bad_address_is_refused_with_what_to_do(cast, url, sentence):
    with pytest.raises(webhooks.BadWebhook, match=sentence) as caught:
        webhooks.set_(cast.acme, url, cast.owner)
    assert caught.value.field == "url"
    assert not Webhook.objects.exists()
    assert not AuditEntry.objects.filter(action__startswith="webhook").exists()


def test_removing(cast):
    webhooks.set_(cast.acme, "https://example.com/hooks", cast.owner)
    webhooks.remove(cast.acme, cast.owner)
    assert webhooks.of(cast.acme) is None
    assert AuditEntry.objects.get(action="webhook.remove").before == {"url": "https://example.com/hooks"}
    with pytest.raises(webhooks.NoWebhook):
        webhooks.remove(cast.acme, cast.owner)


def test_a_test_post_says_what_happened(cast, monkeypatch):
    with pytest.raises(webhooks.NoWebhook):
        webhooks.test(cast.acme)
    webhooks.set_(cast.acme, "https://example.com/hooks", cast.owner)
    posts = []

    def accept(url, body, headers):
        posts.append((url, body))
        return 202

    monkeypatch.setattr(outbound, "post", accept)
    assert webhooks.test(cast.acme) == 202
    assert b'"type":"webhook.test"' in posts[0][1]

    def inside(*_):
        raise outbound.BadAddress("private", "inside")

    monkeypatch.setattr(outbound, "post", inside)
    with pytest.raises(webhooks.NotDelivered, match="public internet only"):
        webhooks.test(cast.acme)


def test_another_master_key_or_another_tenant_s_row_does_not_open_it(cast, settings):
    webhook, _ = webhooks.set_(cast.acme, "https://example.com/hooks", cast.owner)
    moved = Webhook(tenant=cast.globex, url=webhook.url, secret=webhook.secret)
    with pytest.raises(webhooks.NotDelivered, match="MASTER_KEY"):
        webhooks.unseal(moved)
    settings.MASTER_KEY = "another"
    with pytest.raises(webhooks.NotDelivered, match="MASTER_KEY"):
        webhooks.unseal(webhook)


def test_a_signature_is_that_of_the_specification():
    """The example of the Standard Webhooks specification's reference libraries."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = webhooks.sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
