"""The key with which a person calls from the playground: a real one, of one hour, made for nobody else.

It is an API key like any other, so limits, budget, guardrails and ledger hold for it, and whoever manages keys may
revoke it. It is made when the person first asks, and handed out again to the same login while it is good; meanwhile
its text rests in the session, encrypted. It ends with the person's right to call.
"""

from __future__ import annotations

import base64
from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from attestation import vault
from tenants import access, keys
from tenants.models import APIKey, Member, Tenant, User
from tenants.problems import Refused

LASTS = timedelta(hours=1)
LEFT = timedelta(minutes=5)  # that one must have to be handed out again, so that a long answer still fits
SCOPES = ("inference",)  # what it cost is read with the person's own rights
PURPOSE = "playground keys"

Session = MutableMapping[str, Any]


class NotAllowed(Refused):
    """The person may not call models in this tenant."""

    status = 403

    def __init__(self) -> None:
        super().__init__(_("Your role does not call models. An owner can give you another one."))


@transaction.atomic
def key(tenant: Tenant, user: User, session: Session) -> tuple[APIKey, str]:
    """The person's key of this login and its text; a new one where there is none, or none for long enough.

    Raises NotAllowed.
    """
    Tenant.objects.select_for_update().get(pk=tenant.pk)  # whoever takes the role away meanwhile waits, then ends it
    role = access.role_of(user, tenant)
    if not role or not access.can(role, "call"):
        raise NotAllowed
    return _kept(tenant, user, session) or _new(tenant, user, session)


def end(tenant: Tenant, user: User, actor: User | None) -> None:
    """Revokes every playground key of a person who has lost the right to call."""
    for each in tenant.api_keys.live().filter(playground=True, created_by=user):
        keys.revoke(each, actor)


def end_unless_allowed(member: Member, actor: User | None) -> None:
    """The same after a change of role, if the new one does not call."""
    if not access.can(member.role, "call"):
        end(member.tenant, member.user, actor)


def _kept(tenant: Tenant, user: User, session: Session) -> tuple[APIKey, str] | None:
    held = session.get(_name(tenant))
    if not held:
        return None
    try:
        text = vault.unseal(PURPOSE, _context(tenant, user), base64.b64decode(held)).decode()
        found = keys.open_(text)
    except (vault.Locked, ValueError, keys.NotOpen):  # revoked, expired, or of another MASTER_KEY
        return None
    long_enough = found.expires_at is not None and found.expires_at - timezone.now() > LEFT
    return (found, text) if long_enough and found.tenant_id == tenant.pk else None


def _new(tenant: Tenant, user: User, session: Session) -> tuple[APIKey, str]:
    name = _("Playground of %(name)s") % {"name": user.get_username()}
    ends = timezone.now() + LASTS
    made, text = keys.create(tenant, name[:80], user, SCOPES, expires_at=ends, playground=True)
    session[_name(tenant)] = base64.b64encode(vault.seal(PURPOSE, _context(tenant, user), text.encode())).decode()
    return made, text


def _name(tenant: Tenant) -> str:
    return f"playground:{tenant.pk}"


def _context(tenant: Tenant, user: User) -> str:
    return f"{tenant.pk}:{user.pk}"
