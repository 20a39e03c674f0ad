"""API keys: created once, shown once, revoked for ever. The gateway sees a revocation on the next call."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone

from tenants import audit, epochs, keytext
from tenants.keytext import Malformed, matches, parse
from tenants.models import APIKey, Tenant, User

__all__ = ["SCOPES", "Malformed", "UnknownScope", "authenticate", "create", "matches", "parse", "revoke"]
SCOPES = ("inference", "usage", "manage")


class UnknownScope(ValueError):
    def __init__(self, scopes: Sequence[str]) -> None:
        super().__init__(f"A key has at least one scope out of {', '.join(SCOPES)}, not {list(scopes)}.")
        self.scopes = scopes


@transaction.atomic
def create(
    tenant: Tenant, name: str, user: User | None = None, scopes: Sequence[str] = ("inference", "usage")
) -> tuple[APIKey, str]:
    """A new key of `tenant` and its text, which is stored nowhere: show it now or never. Raises UnknownScope."""
    if not scopes or set(scopes) - set(SCOPES):
        raise UnknownScope(scopes)
    key_id, secret = keytext.generate()
    salt = secrets.token_hex(16)
    key = APIKey.objects.create(
        id=key_id,
        tenant=tenant,
        name=name,
        salt=salt,
        digest=keytext.digest(salt, secret),
        scopes=list(scopes),
        created_by=user,
    )
    audit.record(user, "key.create", f"key {key.id}", None, {"name": name, "scopes": list(scopes)}, tenant)
    return key, keytext.write(key_id, secret)


def authenticate(text: str) -> APIKey | None:
    """The live key behind a text, or None: malformed, unknown, wrong, expired, revoked, or its tenant is not active."""
    try:
        key_id, secret = parse(text)
    except Malformed:
        return None
    key = APIKey.objects.live().select_related("tenant").filter(pk=key_id).first()
    return key if key and matches(key.salt, key.digest, secret) else None


@transaction.atomic
def revoke(key: APIKey, user: User | None = None) -> APIKey:
    """Ends `key`: the next call with it is refused. Revoking twice changes nothing."""
    now = timezone.now()
    if APIKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=now):
        key.revoked_at = now
        audit.record(user, "key.revoke", f"key {key.id}", {"revoked": False}, {"revoked": True}, key.tenant)
        epochs.raise_(key.tenant)
    return key
