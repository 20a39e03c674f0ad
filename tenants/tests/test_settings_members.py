"""Pages of members and invitations: a link shown once makes one member; the last owner stays."""

import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from tenants import members
from tenants.models import Invitation, Member, Tenant, User

pytestmark = [pytest.mark.django_db, pytest.mark.journey]
LINK = re.compile(r"http://testserver(/invitations/[\w-]+/)")


@pytest.fixture(autouse=True)
def english(cast):
    User.objects.update(language="en")
    for person in (cast.owner, cast.engineer, cast.outsider, cast.auditor, cast.operator):
        person.language = "en"


def page(name, *ids):
    return reverse(name, args=["acme", *ids])


def invited(cast, role="developer", email="ayse@example.com"):
    return members.invite(cast.acme, email, role, cast.owner)


def test_an_invitation_is_shown_once_and_accepted_once(client, cast, mailoutbox):
    client.force_login(cast.owner)
    answer = client.post(page("invite"), {"email": "ayse@example.com", "role": "engineer"})
    (link,) = LINK.findall(answer.text)
    assert "no-store" in answer.headers["Cache-Control"]
    shown = client.get(page("members"))
    assert "ayse@example.com" in shown.text
    assert not LINK.search(shown.text)

    client.force_login(cast.outsider)
    seen = client.get(link)
    assert "Acme" in seen.text
    assert "Engineer" in seen.text
    assert not Member.objects.filter(tenant=cast.acme, user=cast.outsider).exists()
    joined = client.post(link, follow=True)
    assert joined.redirect_chain[0][0] == "/t/acme/"
    assert "You are now a member of Acme: Engineer." in joined.text
    assert Member.objects.get(tenant=cast.acme, user=cast.outsider).role == "engineer"

    client.force_login(cast.operator)
    again = client.post(link)
    assert again.status_code == 409
    assert "accepted already" in again.text
    assert not Member.objects.filter(tenant=cast.acme, user=cast.operator).exists()


def test_a_link_waits_for_the_login_and_comes_back(client, cast):
    _made, text = invited(cast)
    link = reverse("invitation", args=[text])
    to_login = client.get(link)
    assert to_login.url == f"/login/?next={link}"
    answer = client.post("/login/", {"username": "outsider", "password": "parola-1234", "next": link})
    assert answer.url == link


def test_a_link_that_is_over_says_why(client, cast):
    made, text = invited(cast)
    link = reverse("invitation", args=[text])
    client.force_login(cast.outsider)
    Invitation.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert "older than seven days" in client.get(link).text
    Invitation.objects.update(expires_at=timezone.now() + timedelta(days=1))
    members.withdraw(made, cast.owner)
    for answer in (client.get(link), client.post(link)):
        assert answer.status_code == 409
        assert "withdrawn" in answer.text
    unknown = client.get(reverse("invitation", args=["x" * 43]))
    assert unknown.status_code == 409
    assert "no such invitation" in unknown.text
    assert Member.objects.filter(user=cast.outsider).count() == 1


def test_a_closed_tenant_invites_nobody(client, cast):
    _made, text = invited(cast)
    Tenant.objects.filter(pk=cast.acme.pk).update(status="closed")
    client.force_login(cast.outsider)
    assert client.post(reverse("invitation", args=[text])).status_code == 409
    assert not Member.objects.filter(tenant=cast.acme, user=cast.outsider).exists()


def test_who_is_a_member_already_stays_what_he_is(client, cast):
    _made, text = invited(cast, role="owner")
    client.force_login(cast.auditor)
    assert client.post(reverse("invitation", args=[text])).status_code == 409
    assert Member.objects.get(tenant=cast.acme, user=cast.auditor).role == "auditor"


@pytest.mark.parametrize(
    "wrong", [{"email": "kein-at"}, {"email": ""}, {"role": "emperor"}, {"email": "ayse@example.com"}]
)
def test_a_bad_invitation_is_explained_and_keeps_what_was_typed(client, cast, wrong):
    invited(cast)
    client.force_login(cast.owner)
    answer = client.post(page("invite"), {"email": "yeni@example.com", "role": "reviewer"} | wrong)
    assert answer.status_code == 422
    assert set(answer.context["form"].errors) == set(wrong)
    typed = wrong.get("email", "yeni@example.com")
    if typed:
        assert f'value="{typed}"' in answer.text
    assert Invitation.objects.count() == 1


def test_withdrawing_kills_the_link(client, cast):
    made, text = invited(cast)
    client.force_login(cast.owner)
    assert "withdrawn" in client.post(page("invitation_withdraw", made.pk), follow=True).text
    with pytest.raises(members.NotOpen):
        members.find(text)


def test_roles_change_and_members_go(client, cast):
    client.force_login(cast.owner)
    member = Member.objects.get(tenant=cast.acme, user=cast.developer)
    assert "now: Reviewer" in client.post(page("member_role", member.pk), {"role": "reviewer"}, follow=True).text
    member.refresh_from_db()
    assert member.role == "reviewer"
    client.post(page("member_role", member.pk), {"role": "emperor"})
    member.refresh_from_db()
    assert member.role == "reviewer"
    client.post(page("member_remove", member.pk))
    client.force_login(cast.developer)
    assert client.get(page("members")).status_code == 404


def test_the_last_owner_stays(client, cast):
    client.force_login(cast.owner)
    member = Member.objects.get(tenant=cast.acme, user=cast.owner)
    for verb, data in (("member_remove", {}), ("member_role", {"role": "auditor"})):
        assert "needs an owner" in client.post(page(verb, member.pk), data, follow=True).text
    member.refresh_from_db()
    assert member.role == "owner"


def test_an_owner_who_leaves_lands_outside(client, cast):
    Member.objects.filter(tenant=cast.acme, user=cast.engineer).update(role="owner")
    client.force_login(cast.owner)
    member = Member.objects.get(tenant=cast.acme, user=cast.owner)
    assert client.post(page("member_remove", member.pk)).url == "/"
    left = client.get("/")
    assert "not a member of any tenant" in left.text
    assert "invitation link" in left.text


@pytest.mark.parametrize("role", ["engineer", "developer", "reviewer", "auditor"])
def test_only_an_owner_changes_who_belongs(client, cast, role):
    made, _text = invited(cast)
    member = Member.objects.get(tenant=cast.acme, user=cast.reviewer)
    client.force_login(getattr(cast, role))
    assert page("invite") not in client.get(page("members")).text
    for address in (
        page("invite"),
        page("invitation_withdraw", made.pk),
        page("member_role", member.pk),
        page("member_remove", member.pk),
    ):
        assert client.post(address, {"email": "a@example.com", "role": "owner"}).status_code == 403
    assert Member.objects.filter(tenant=cast.acme).count() == 5


def test_rows_of_another_tenant_are_not_found(client, cast):
    made, _text = invited(cast)
    member = Member.objects.get(tenant=cast.acme, user=cast.reviewer)
    client.force_login(cast.outsider)
    for verb, pk in (("invitation_withdraw", made.pk), ("member_role", member.pk), ("member_remove", member.pk)):
        assert client.post(reverse(verb, args=["globex", pk]), {"role": "owner"}).status_code == 404
        assert client.post(reverse(verb, args=["acme", pk]), {"role": "owner"}).status_code == 404
    assert client.get(page("members")).status_code == 404
    assert Member.objects.filter(pk=member.pk, role="reviewer").exists()
