"""API keys: created once, shown once, rotated, revoked for ever. The gateway sees each change on the next call."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from tenants import audit, epochs, keytext
from tenants.keytext import Malformed, matches, parse
from tenants.models import APIKey, Quota, Tenant, User
from tenants.problems import LAST, Refused

__all__ = ["BadSetting", "Ended", "LONGEST_GRACE", "MOST_TOKENS", "Malformed", "NotOpen", "SCOPES", "UnknownScope"]
__all__ += ["authenticate", "change", "create", "matches", "open_", "parse", "revoke", "rotate"]
SCOPES = ("inference", "usage", "manage")
MOST_TOKENS = 1_000_000  # of one answer, when the call names no bound
MOST_MODELS = 100  # names that one key lists
LONGEST_GRACE = timedelta(days=30)
SETTINGS = ("name", "scopes", "allowed_models", "expires_at", "default_max_tokens")


class UnknownScope(Refused):
    field = "scopes"

    def __init__(self, scopes: Sequence[str]) -> None:
        words = {"scopes": ", ".join(SCOPES), "given": ", ".join(map(str, scopes)) or "-"}
        super().__init__(_("A key has at least one scope out of %(scopes)s, not %(given)s.") % words)
        self.scopes = scopes


class BadSetting(Refused):
    """A name, an expiry, a list of models, a number of tokens or a grace that no key can have."""


class Ended(Refused):
    """The key is revoked, expired, already replaced, or a playground's, which is over soon."""

    status = 409


class NotOpen(LookupError):
    """A text of the right shape that opens nothing. The sentence tells more only to who has the secret."""


@transaction.atomic
def create(
    tenant: Tenant,
    name: str,
    user: User | None = None,
    scopes: Sequence[str] = ("inference", "usage"),
    *,
    allowed_models: Sequence[str] = (),
    expires_at: datetime | None = None,
    default_max_tokens: int = 1024,
    playground: bool = False,
) -> tuple[APIKey, str]:
    """A new key of `tenant` and its text, which is stored nowhere: show it now or never.

    No allowed models: every one of the tenant. Raises UnknownScope and BadSetting.
    """
    settings = {
        "name": name,
        "scopes": list(scopes),
        "allowed_models": list(allowed_models),
        "expires_at": expires_at,
        "default_max_tokens": default_max_tokens,
    }
    key, text = _make(tenant, user, _checked(settings) | {"playground": playground})
    audit.record(user, "key.create", f"key {key.id}", None, _facts(key), tenant)
    epochs.raise_(tenant)
    return key, text


@transaction.atomic
def change(key: APIKey, actor: User | None, **settings: Any) -> APIKey:
    """Changes the settings that are named (`SETTINGS`); they hold from the next call on.

    Raises BadSetting, UnknownScope, and Ended for a key that is over or replaced.
    """
    held = _held(key)
    _still_live(held)
    before = _facts(held)
    for name, value in _checked(settings).items():
        setattr(held, name, value)
    if _facts(held) != before:
        held.save(update_fields=list(settings))
        audit.record(actor, "key.change", f"key {held.id}", before, _facts(held), held.tenant)
        epochs.raise_(held.tenant)
    return held


@transaction.atomic
def rotate(key: APIKey, user: User | None, grace: timedelta) -> tuple[APIKey, str]:
    """A key with the same settings and limits, and its text; the old one works until `grace` (0 to 30 days) is over.

    Raises Ended for a key that is over or already replaced, BadSetting for another grace.
    """
    if not timedelta(0) <= grace <= LONGEST_GRACE:
        raise BadSetting(_("A replaced key can go on working for 0 to 30 days."), "grace")
    held = _held(key)
    _still_live(held)
    before = _facts(held)
    fresh, text = _make(held.tenant, user, {name: getattr(held, name) for name in SETTINGS}, held)
    held.revoked_at = timezone.now() + grace
    held.save(update_fields=["revoked_at"])
    if quota := Quota.objects.filter(key=held).first():
        Quota.objects.create(tenant=held.tenant, key=fresh, **{name: getattr(quota, name) for name in Quota.FIELDS})
    audit.record(user, "key.rotate", f"key {held.id}", before, _facts(held) | {"successor": fresh.id}, held.tenant)
    epochs.raise_(held.tenant)
    key.revoked_at = held.revoked_at
    return fresh, text


@transaction.atomic
def revoke(key: APIKey, user: User | None = None) -> APIKey:
    """Ends `key`, also one in the grace of its rotation: the next call with it is refused. Twice changes nothing."""
    held, now = _held(key), timezone.now()
    if held.revoked_at is None or held.revoked_at > now:
        before = _facts(held)
        held.revoked_at = now
        held.save(update_fields=["revoked_at"])
        audit.record(user, "key.revoke", f"key {held.id}", before, _facts(held), held.tenant)
        epochs.raise_(held.tenant)
    key.revoked_at = held.revoked_at
    return key


def authenticate(text: str) -> APIKey | None:
    """The live key behind a text, or None: malformed, unknown, wrong, expired, revoked, or its tenant is not active."""
    try:
        return open_(text)
    except (Malformed, NotOpen):
        return None


def open_(text: str) -> APIKey:
    """The live key behind a text. Raises Malformed for a mistyped one, NotOpen for one that opens nothing now."""
    key_id, secret = parse(text)
    key = APIKey.objects.select_related("tenant").filter(pk=key_id).first()
    if key is None or not matches(key.salt, key.digest, secret):
        raise NotOpen(_("This API key is unknown here. Check that it belongs to this address."))
    now = timezone.now()
    if key.revoked_at and key.revoked_at <= now:
        raise NotOpen(_("This API key is revoked. Use the one that replaced it, or create another."))
    if key.expires_at and key.expires_at <= now:
        raise NotOpen(_("This API key has expired. Create another."))
    if key.tenant.status != Tenant.Status.ACTIVE:
        raise NotOpen(_("The tenant of this API key is not active. Ask the operator."))
    return key


def _make(
    tenant: Tenant, user: User | None, settings: dict[str, Any], replaces: APIKey | None = None
) -> tuple[APIKey, str]:
    key_id, secret = keytext.generate()
    salt = secrets.token_hex(16)
    key = APIKey.objects.create(
        id=key_id,
        tenant=tenant,
        salt=salt,
        digest=keytext.digest(salt, secret),
        created_by=user,
        rotated_from=replaces,
        **settings,
    )
    return key, keytext.write(key_id, secret)


def _held(key: APIKey) -> APIKey:
    """The row as it is now, locked until the transaction ends."""
    return APIKey.objects.select_for_update(of=("self",)).select_related("tenant").get(pk=key.pk)


def _still_live(key: APIKey) -> None:
    if key.playground:
        raise Ended(_("A playground key ends within the hour and stays as it is. Create a key of your own."))
    if APIKey.objects.filter(rotated_from=key).exists():
        raise Ended(_("%(name)s has been replaced already. Change or rotate its successor.") % {"name": key.name})
    if key.revoked_at:
        raise Ended(_("%(name)s is revoked. Create another key.") % {"name": key.name})
    if key.expires_at and key.expires_at <= timezone.now():
        raise Ended(_("%(name)s has expired. Create another key.") % {"name": key.name})


def _facts(key: APIKey) -> dict[str, Any]:
    """What the audit log shows of a key; nothing secret."""
    times = {
        name: value.isoformat() if (value := getattr(key, name)) else None for name in ("expires_at", "revoked_at")
    }
    return {name: getattr(key, name) for name in SETTINGS} | times | ({"playground": True} if key.playground else {})


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as they are stored; raises UnknownScope and BadSetting."""
    return {name: CHECKS[name](value) for name, value in settings.items()}


def _name(value: str) -> str:
    if not 1 <= len(value.strip()) <= 80:
        raise BadSetting(_("A key's name has 1 to 80 characters."), "name")
    return value.strip()


def _scopes(value: Sequence[str]) -> list[str]:
    if not value or set(value) - set(SCOPES):
        raise UnknownScope(value)
    return [scope for scope in SCOPES if scope in value]


def _allowed_models(value: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(value))
    if len(names) > MOST_MODELS or not all(isinstance(name, str) and 1 <= len(name) <= 120 for name in names):
        raise BadSetting(_("Name at most 100 models, each with 1 to 120 characters."), "allowed_models")
    return names


def _expires_at(value: datetime | None) -> datetime | None:
    if value and value <= timezone.now():
        raise BadSetting(_("The key's end lies in the past. Choose a later instant, or none."), "expires_at")
    if value and value > LAST:
        raise BadSetting(_("The key's end lies too far ahead. Choose an earlier instant, or none."), "expires_at")
    return value


def _default_max_tokens(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_TOKENS:
        raise BadSetting(_("The tokens of an answer are a whole number from 1 to 1,000,000."), "default_max_tokens")
    return value


CHECKS: dict[str, Any] = {
    "name": _name,
    "scopes": _scopes,
    "allowed_models": _allowed_models,
    "expires_at": _expires_at,
    "default_max_tokens": _default_max_tokens,
}
