"""REST of members and invitations. A person accepts an invitation on its page, not here."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from django.urls import reverse
from rest_framework import serializers, status
from rest_framework.response import Response

from tenants import members
from tenants.models import Invitation, Member
from tenants.rest import endpoint, page, valid


class MemberSerializer(serializers.ModelSerializer[Member]):
    username = serializers.CharField(source="user.username")
    email = serializers.CharField(source="user.email")

    class Meta:
        model = Member
        fields = ["id", "username", "email", "role"]


class InvitationSerializer(serializers.ModelSerializer[Invitation]):
    invited_by = serializers.StringRelatedField[Any]()
    accepted_by = serializers.StringRelatedField[Any]()

    class Meta:
        model = Invitation
        fields = [
            "id",
            "email",
            "role",
            "invited_by",
            "created_at",
            "expires_at",
            "accepted_at",
            "accepted_by",
            "withdrawn_at",
        ]


class FreshInvitation(InvitationSerializer):
    link = serializers.URLField(help_text="where it is accepted, shown once")

    class Meta(InvitationSerializer.Meta):
        fields = [*InvitationSerializer.Meta.fields, "link"]


class NewInvitation(serializers.Serializer[Any]):
    email = serializers.EmailField(max_length=254)
    role = serializers.ChoiceField(choices=Member.Role.choices)


class Role(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=Member.Role.choices)


@endpoint(["GET"], lists=MemberSerializer)
def member_list(request: Any) -> Response:
    """Who belongs to the tenant, by name."""
    return page(request, request.tenant.members.select_related("user"), MemberSerializer, ("user__username",))


@endpoint(["GET", "PATCH", "DELETE"], write="own", takes={"PATCH": Role}, answers=MemberSerializer)
def member(request: Any, pk: int) -> Response:
    """One member. PATCH changes the role, DELETE removes; the last owner stays owner."""
    found = get_object_or_404(Member.objects.select_related("user", "tenant"), tenant=request.tenant, pk=pk)
    if request.method == "DELETE":
        members.remove(found, request.person)
        return Response(status=status.HTTP_204_NO_CONTENT)
    if request.method == "PATCH":
        members.set_role(found, valid(Role, request.data)["role"], request.person)
    return Response(MemberSerializer(found).data)


@endpoint(
    ["GET", "POST"],
    write="own",
    takes={"POST": NewInvitation},
    lists=InvitationSerializer,
    answers=FreshInvitation,
    creates=True,
)
def invitation_list(request: Any) -> Response:
    """GET lists invitations; POST makes one and mails its link, which is in this answer and never again."""
    if request.method != "POST":
        rows = request.tenant.invitations.select_related("invited_by", "accepted_by")
        return page(request, rows, InvitationSerializer)
    wanted = valid(NewInvitation, request.data)

    def link(text: str) -> str:
        return str(request.build_absolute_uri(reverse("invitation", args=[text])))

    made, text = members.invite(request.tenant, wanted["email"], wanted["role"], request.person, link)
    answer = InvitationSerializer(made).data | {"link": link(text)}
    return Response(answer, status=status.HTTP_201_CREATED, headers={"Cache-Control": "no-store"})


@endpoint(["GET", "DELETE"], write="own", answers=InvitationSerializer)
def invitation(request: Any, pk: int) -> Response:
    """One invitation; DELETE withdraws it: its link is dead from now on."""
    rows = Invitation.objects.select_related("tenant", "invited_by", "accepted_by")
    found = get_object_or_404(rows, tenant=request.tenant, pk=pk)
    if request.method == "DELETE":
        members.withdraw(found, request.person)
        return Response(status=status.HTTP_204_NO_CONTENT)
    return Response(InvitationSerializer(found).data)
