"""Who belongs to a tenant: invitations, roles, and that it always has an owner."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from django.core.mail import send_mail
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from tenants import audit, playground
from tenants.models import Invitation, Member, Tenant, User
from tenants.problems import Refused

OPEN_FOR = timedelta(days=7)
log = logging.getLogger(__name__)


class UnknownRole(Refused):
    field = "role"

    def __init__(self) -> None:
        super().__init__(_("The role is one of %(roles)s.") % {"roles": ", ".join(Member.Role.values)})


class AlreadyMember(Refused):
    field, status = "email", 409

    def __init__(self, name: str) -> None:
        super().__init__(_("%(name)s is a member already. Change the role instead.") % {"name": name})


class AlreadyInvited(Refused):
    field, status = "email", 409

    def __init__(self, email: str) -> None:
        super().__init__(_("%(email)s has an open invitation. Withdraw it before you send another.") % {"email": email})


class NotOpen(Refused):
    """The invitation was accepted, withdrawn, is too old, or there never was one."""

    status = 409


class LastOwner(Refused):
    field, status = "role", 409

    def __init__(self, tenant: Tenant) -> None:
        super().__init__(_("%(tenant)s needs an owner. Make somebody else one first.") % {"tenant": tenant.name})


@transaction.atomic
def invite(
    tenant: Tenant, email: str, role: str, actor: User | None, link: Callable[[str], str] | None = None
) -> tuple[Invitation, str]:
    """An invitation for seven days and its text, which is stored nowhere. `link(text)` is the address that is mailed.

    Raises UnknownRole, AlreadyMember, AlreadyInvited.
    """
    _known(role)
    _lock(tenant)
    if member := tenant.members.filter(user__email__iexact=email).select_related("user").first():
        raise AlreadyMember(member.user.username)
    now = timezone.now()
    if tenant.invitations.filter(email__iexact=email, accepted_at=None, withdrawn_at=None, expires_at__gt=now).exists():
        raise AlreadyInvited(email)
    text = secrets.token_urlsafe(32)
    made = Invitation.objects.create(
        tenant=tenant, email=email, role=role, digest=_digest(text), invited_by=actor, expires_at=now + OPEN_FOR
    )
    audit.record(actor, "invitation.create", email, None, {"role": role}, tenant)
    if link:
        transaction.on_commit(partial(_mail, made, link(text)), robust=True)
    return made, text


def find(text: str) -> Invitation:
    """The open invitation behind a text; raises NotOpen with what became of it."""
    found = Invitation.objects.select_related("tenant").filter(digest=_digest(text)).first()
    if found is None or found.tenant.status == Tenant.Status.CLOSED:
        raise NotOpen(_("There is no such invitation. Open the link of the e-mail again, all of it."))
    if found.accepted_at:
        raise NotOpen(_("This invitation was accepted already. Log in as who accepted it."))
    if found.withdrawn_at:
        raise NotOpen(_("This invitation was withdrawn. Ask an owner for another."))
    if found.expires_at <= timezone.now():
        raise NotOpen(_("This invitation is older than seven days. Ask an owner for another."))
    return found


@transaction.atomic
def accept(text: str, user: User) -> Member:
    """Makes who is logged in a member, once. Raises NotOpen, and AlreadyMember, which leaves the invitation open."""
    tenant = find(text).tenant
    _lock(tenant)
    found = find(text)  # as it is behind the lock
    try:
        with transaction.atomic():
            member = Member.objects.create(tenant=tenant, user=user, role=found.role)
    except IntegrityError:
        raise AlreadyMember(user.username) from None
    found.accepted_at, found.accepted_by = timezone.now(), user
    found.save(update_fields=["accepted_at", "accepted_by"])
    audit.record(user, "invitation.accept", found.email, None, {"role": found.role, "user": user.username}, tenant)
    return member


@transaction.atomic
def add(tenant: Tenant, user: User, role: str, actor: User | None) -> Member:
    """Without an invitation: the operator's way. Raises UnknownRole, AlreadyMember."""
    _known(role)
    try:
        with transaction.atomic():
            member = Member.objects.create(tenant=tenant, user=user, role=role)
    except IntegrityError:
        raise AlreadyMember(user.username) from None
    audit.record(actor, "member.create", user.username, None, {"role": role}, tenant)
    return member


@transaction.atomic
def withdraw(invitation: Invitation, actor: User | None) -> Invitation:
    """Its link is dead from now on. Raises NotOpen for an accepted one; withdrawing twice changes nothing."""
    _lock(invitation.tenant)
    invitation.refresh_from_db()
    if invitation.accepted_at:
        raise NotOpen(_("This invitation was accepted already. Remove the member instead."))
    if invitation.withdrawn_at is None:
        invitation.withdrawn_at = timezone.now()
        invitation.save(update_fields=["withdrawn_at"])
        audit.record(actor, "invitation.withdraw", invitation.email, {"role": invitation.role}, None, invitation.tenant)
    return invitation


@transaction.atomic
def set_role(member: Member, role: str, actor: User | None) -> Member:
    """Raises UnknownRole, and LastOwner if nobody would be owner any more."""
    _known(role)
    _lock(member.tenant)
    member.refresh_from_db()
    before = member.role
    if role != before:
        if before == Member.Role.OWNER:
            _another_owner(member)
            _withdraw_all_of(member, actor)
        member.role = role
        member.save(update_fields=["role"])
        audit.record(actor, "member.change", member.user.username, {"role": before}, {"role": role}, member.tenant)
        playground.end_unless_allowed(member, actor)
    return member


@transaction.atomic
def remove(member: Member, actor: User | None) -> None:
    """The person is a stranger from now on; keys stay, but for the playground's. Raises LastOwner."""
    _lock(member.tenant)
    member.refresh_from_db()
    if member.role == Member.Role.OWNER:
        _another_owner(member)
    _withdraw_all_of(member, actor)
    audit.record(actor, "member.delete", member.user.username, {"role": member.role}, None, member.tenant)
    playground.end(member.tenant, member.user, actor)
    member.delete()


def _withdraw_all_of(member: Member, actor: User | None) -> None:
    """What an owner who is one no more has invited is not accepted, by that person least of all."""
    for invitation in member.tenant.invitations.filter(invited_by=member.user, accepted_at=None, withdrawn_at=None):
        withdraw(invitation, actor)


def _another_owner(member: Member) -> None:
    if not member.tenant.members.filter(role=Member.Role.OWNER).exclude(pk=member.pk).exists():
        raise LastOwner(member.tenant)


def _lock(tenant: Tenant) -> None:
    """Two owners who remove each other at once wait for each other here."""
    Tenant.objects.select_for_update().get(pk=tenant.pk)


def _known(role: str) -> None:
    if role not in Member.Role.values:
        raise UnknownRole


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _mail(invitation: Invitation, address: str) -> None:
    """The owner has the link too, so that a mail server that is down hinders nobody."""
    words = {"tenant": invitation.tenant.name, "address": address}
    body = _(
        "You are invited to %(tenant)s on Param Stack. Open this address within seven days:\n\n%(address)s\n\n"
        "If you did not expect this, do nothing."
    )
    try:
        send_mail(_("Invitation to %(tenant)s") % words, body % words, None, [invitation.email])
    except OSError as error:
        log.warning("The invitation of %s was not mailed: %s", invitation.email, error)
