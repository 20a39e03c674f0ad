"""Where a tenant's alerts are posted, signed as in Standard Webhooks (standardwebhooks.com).

Headers `webhook-id`, `webhook-timestamp` and `webhook-signature: v1,<base64 HMAC-SHA256 of id.timestamp.body>`, under
the secret `whsec_<base64>`, which is shown once and rests encrypted by the master key, bound to its tenant.
"""

from __future__ import annotations

import base64
import hmac
import os
import time
import uuid
from typing import Any

import orjson
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from attestation import vault
from tenants import audit
from tenants.models import Tenant, User, Webhook
from tenants.notices import outbound
from tenants.problems import Refused

PURPOSE = "webhook secrets"
SECRET_BYTES = 32
SECRET_PREFIX = "whsec_"  # noqa: S105  (what Standard Webhooks puts before a secret)


class BadWebhook(Refused):
    """The address cannot be posted to."""

    field = "url"


class NoWebhook(Refused):
    def __init__(self) -> None:
        super().__init__(_("This tenant has no webhook. Set its address first."))


FAILED = {
    "name": gettext_lazy("%(fact)s has no address. Check how the name is written."),
    "time": gettext_lazy("It did not answer within %(fact)s s. Let it answer first and work afterwards."),
    "certificate": gettext_lazy("Its certificate does not hold (%(fact)s). Renew it, or write its own name."),
    "reach": gettext_lazy("It cannot be reached (%(fact)s). Check that it is open to the internet."),
    "status": gettext_lazy("It answered %(fact)s, not 2xx. Redirects are not followed: give the last address."),
}


class NotDelivered(Exception):
    """A POST was not taken; the text says why."""


def of(tenant: Tenant) -> Webhook | None:
    return Webhook.objects.filter(tenant=tenant).first()


@transaction.atomic
def set_(tenant: Tenant, url: str, user: User | None) -> tuple[Webhook, str]:
    """Where alerts go from now on, and a new secret, whose text is nowhere else. Raises BadWebhook."""
    url = url.strip()
    try:
        outbound.parse(url)
    except outbound.BadAddress as error:
        raise BadWebhook(_sentence(error)) from error
    if len(url) > 400:
        raise BadWebhook(_("The address is longer than 400 characters. Give a shorter one."))
    before, secret = of(tenant), os.urandom(SECRET_BYTES)
    webhook, _made = Webhook.objects.update_or_create(
        tenant=tenant,
        defaults={"url": url, "secret": vault.seal(PURPOSE, str(tenant.pk), secret), "created_at": timezone.now()},
    )
    audit.record(user, "webhook.set", tenant.slug, before and {"url": before.url}, {"url": url}, tenant)
    return webhook, SECRET_PREFIX + base64.b64encode(secret).decode()


@transaction.atomic
def remove(tenant: Tenant, user: User | None) -> None:
    """Alerts go by e-mail only. Raises NoWebhook."""
    webhook = of(tenant)
    if webhook is None:
        raise NoWebhook
    webhook.delete()
    audit.record(user, "webhook.remove", tenant.slug, {"url": webhook.url}, None, tenant)


def test(tenant: Tenant) -> int:
    """Posts a `webhook.test` now, and answers the status. Raises NoWebhook or NotDelivered. Takes up to 30 s."""
    webhook = of(tenant)
    if webhook is None:
        raise NoWebhook
    at = timezone.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = {"type": "webhook.test", "timestamp": at, "data": {"tenant": tenant.slug}}
    return send(webhook, f"msg_test_{uuid.uuid4().hex}", body)


def send(webhook: Webhook, message_id: str, body: dict[str, Any]) -> int:
    """One attempt; raises NotDelivered. `message_id` is the same at every attempt of one message."""
    data, at = orjson.dumps(body), int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "ParamStack-Webhooks/1",
        "webhook-id": message_id,
        "webhook-timestamp": str(at),
        "webhook-signature": sign(unseal(webhook), message_id, at, data),
    }
    try:
        return outbound.post(webhook.url, data, headers)
    except outbound.BadAddress as error:
        raise NotDelivered(_sentence(error)) from error
    except outbound.Failed as error:
        raise NotDelivered(FAILED[error.reason] % {"fact": error.fact} if error.reason else str(error)) from error


def sign(secret: bytes, message_id: str, at: int, body: bytes) -> str:
    """The value of `webhook-signature`; `at` in seconds since 1970."""
    signed = b"%s.%d.%s" % (message_id.encode(), at, body)
    return "v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode()


def unseal(webhook: Webhook) -> bytes:
    """The secret itself. Raises NotDelivered under another MASTER_KEY, or of another tenant's row."""
    try:
        return vault.unseal(PURPOSE, str(webhook.tenant_id), bytes(webhook.secret))
    except vault.Locked as error:
        raise NotDelivered(_("Its secret does not open with this MASTER_KEY. Set the webhook again.")) from error


def _sentence(error: outbound.BadAddress) -> str:
    if error.reason == "https":
        return _("Alerts are posted over https only. Give an address that begins with https://.")
    if error.reason == "port":
        return _("Alerts are posted to port 443 or to one above 1023. Give an address without another port.")
    if error.reason == "private":
        return _("Alerts are posted to the public internet only. This name or address belongs to a private network.")
    return _("This is no address that alerts can be posted to. Give one such as https://example.com/hooks.")
