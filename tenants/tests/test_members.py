"""An invitation opens once, and a tenant always has an owner."""

from datetime import timedelta

import pytest
from django.core import mail
from django.utils import timezone

from tenants import members, tenancy
from tenants.models import AuditEntry, Invitation, Member, User

pytestmark = pytest.mark.django_db


def invite(cast, email="yeni@example.com", role="developer", **more):
    return members.invite(cast.acme, email, role, cast.owner, **more)


def test_an_invitation_is_mailed_and_its_text_stored_nowhere(cast, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        made, text = invite(cast, link=lambda text: f"https://ps.example/invitations/{text}/")
    (letter,) = mail.outbox
    assert letter.to == ["yeni@example.com"]
    assert f"https://ps.example/invitations/{text}/" in letter.body
    assert "Acme" in letter.subject
    assert text not in str(list(Invitation.objects.values())) + str(list(AuditEntry.objects.values()))
    assert timedelta(days=6, hours=23) < made.expires_at - timezone.now() <= timedelta(days=7)


def test_a_mail_server_that_is_down_hinders_nobody(cast, settings, django_capture_on_commit_callbacks):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 1
    with django_capture_on_commit_callbacks(execute=True):
        _made, text = invite(cast, link=lambda text: text)
    assert members.find(text).email == "yeni@example.com"


def test_it_opens_once(cast):
    made, text = invite(cast, role="engineer")
    member = members.accept(text, cast.outsider)
    assert (member.tenant, member.role) == (cast.acme, "engineer")
    made.refresh_from_db()
    assert made.accepted_by == cast.outsider
    someone = User.objects.create_user("someone")
    with pytest.raises(members.NotOpen, match="accepted"):
        members.accept(text, someone)
    assert not someone.memberships.exists()
    assert AuditEntry.objects.get(action="invitation.accept").after == {"role": "engineer", "user": "outsider"}


def test_what_does_not_open(cast):
    made, text = invite(cast)
    with pytest.raises(members.NotOpen, match="no such"):
        members.accept(text + "x", cast.outsider)
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(members.NotOpen, match="seven days"):
        members.accept(text, cast.outsider)
    Invitation.objects.update(expires_at=timezone.now() + timedelta(days=1))
    for _ in range(2):
        members.withdraw(made, cast.owner)
    with pytest.raises(members.NotOpen, match="withdrawn"):
        members.accept(text, cast.outsider)
    assert AuditEntry.objects.filter(action="invitation.withdraw").count() == 1
    assert not Member.objects.filter(tenant=cast.acme, user=cast.outsider).exists()


def test_a_closed_tenant_takes_nobody(cast):
    _made, text = invite(cast)
    tenancy.close(cast.acme, cast.operator)
    with pytest.raises(members.NotOpen):
        members.accept(text, cast.outsider)


def test_a_member_is_not_invited_and_leaves_the_invitation_open(cast):
    User.objects.filter(pk=cast.auditor.pk).update(email="Denetci@example.com")
    with pytest.raises(members.AlreadyMember, match="auditor"):
        invite(cast, "denetci@EXAMPLE.com")
    _made, text = invite(cast)
    with pytest.raises(members.AlreadyMember):
        members.accept(text, cast.auditor)
    assert members.find(text)


def test_one_open_invitation_an_address(cast):
    made, text = invite(cast)
    with pytest.raises(members.AlreadyInvited):
        invite(cast, "Yeni@example.com", "owner")
    members.withdraw(made, cast.owner)
    again, _ = invite(cast)
    members.accept(_, cast.outsider)
    with pytest.raises(members.NotOpen):
        members.withdraw(again, cast.owner)
    with pytest.raises(members.UnknownRole):
        invite(cast, "a@example.com", "king")


@pytest.mark.parametrize("leaving", [members.remove, lambda member, actor: members.set_role(member, "auditor", actor)])
def test_who_is_owner_no_more_does_not_come_back_by_an_own_invitation(cast, leaving):
    second = members.add(cast.acme, cast.outsider, "owner", cast.owner)
    _, own = members.invite(cast.acme, "me@example.com", "owner", cast.outsider)
    _, other = members.invite(cast.acme, "you@example.com", "auditor", cast.owner)
    leaving(second, cast.owner)
    with pytest.raises(members.NotOpen, match="withdrawn"):
        members.find(own)
    assert members.find(other)


def test_the_last_owner_stays_one(cast):
    owner = Member.objects.get(tenant=cast.acme, role="owner")
    with pytest.raises(members.LastOwner):
        members.set_role(owner, "auditor", cast.owner)
    with pytest.raises(members.LastOwner):
        members.remove(owner, cast.operator)
    second = Member.objects.get(tenant=cast.acme, role="engineer")
    members.set_role(second, "owner", cast.owner)
    members.set_role(owner, "auditor", cast.owner)
    with pytest.raises(members.LastOwner):
        members.remove(second, cast.owner)
    members.remove(owner, cast.engineer)
    assert not Member.objects.filter(tenant=cast.acme, user=cast.owner).exists()
    entries = AuditEntry.objects.order_by("pk").values_list("action", "before", "after")
    assert list(entries) == [
        ("member.change", {"role": "engineer"}, {"role": "owner"}),
        ("member.change", {"role": "owner"}, {"role": "auditor"}),
        ("member.delete", {"role": "auditor"}, None),
    ]
