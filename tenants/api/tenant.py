"""REST of tenants: the operator's list, and one tenant with what it is called and how it stands."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from rest_framework import serializers, status
from rest_framework.response import Response

from tenants import costs, money, tenancy
from tenants.models import Tenant, User
from tenants.rest import endpoint, key_role, operate, page, platform, valid

TURNS = {"suspended": tenancy.suspend, "active": tenancy.resume, "closed": tenancy.close}


class TenantSerializer(serializers.ModelSerializer[Tenant]):
    class Meta:
        model = Tenant
        fields = ["slug", "name", "status", "time_zone", "keeps_answers", "engine_extras", "created_at"]


class NewTenant(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=120)
    slug = serializers.CharField(max_length=50, default="", help_text="default: the name in a-z, 0-9 and hyphens")
    time_zone = serializers.CharField(max_length=64, default="Europe/Istanbul")
    owner = serializers.CharField(max_length=150, required=False, help_text="username of its first owner")


class TenantChange(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=120, required=False)
    time_zone = serializers.CharField(max_length=64, required=False)
    keeps_answers = serializers.BooleanField(
        required=False, help_text="answers to calls with an Idempotency-Key stay for a day, to be given again"
    )
    status = serializers.ChoiceField(choices=list(TURNS), required=False, help_text="the operator's to change")


@platform(["GET", "POST"], takes={"POST": NewTenant}, lists=TenantSerializer, creates=True)
def tenant_list(request: Any) -> Response:
    """GET lists the tenants of the caller, all of them for the operator, who may POST a new one."""
    if request.method != "POST":
        return page(request, _visible(request), TenantSerializer, ("slug",))
    operate(request)
    wanted = valid(NewTenant, request.data)
    if name := wanted.pop("owner", None):
        wanted["owner"] = User.objects.filter(username=name).first()
        if wanted["owner"] is None:
            raise serializers.ValidationError({"owner": [_("There is no person %(name)s.") % {"name": name}]})
    made = tenancy.create(request.person, **wanted)
    return Response(TenantSerializer(made).data, status=status.HTTP_201_CREATED)


def _visible(request: Any) -> QuerySet[Tenant]:
    if key := request.auth:
        return Tenant.objects.filter(pk=key.tenant_id) if key_role(key, key.tenant) else Tenant.objects.none()
    seen = Tenant.objects.visible_to(request.user).order_by().values("pk")
    rows = Tenant.objects.filter(pk__in=seen)
    return rows if request.user.is_superuser else rows.exclude(status=Tenant.Status.CLOSED)


@endpoint(["GET", "PATCH"], read="usage", write="own", takes={"PATCH": TenantChange}, answers=TenantSerializer)
def tenant(request: Any) -> Response:
    """GET answers the tenant and its month so far. PATCH changes name or time zone, and for the operator the status."""
    found: Tenant = request.tenant
    if request.method == "PATCH":
        wanted = valid(TenantChange, request.data)
        if "status" in wanted:
            operate(request)
        _change(found, request.person, wanted)
        found.refresh_from_db()
    month = costs.month(found)
    shown = {name: money.dollars(value) if name in {"spent", "budget"} else value for name, value in month.items()}
    return Response(TenantSerializer(found).data | {"month": shown})


@transaction.atomic
def _change(found: Tenant, person: User, wanted: dict[str, Any]) -> None:
    if name := wanted.get("name"):
        tenancy.rename(found, name, person)
    if zone := wanted.get("time_zone"):
        tenancy.set_time_zone(found, zone, person)
    if "keeps_answers" in wanted:
        tenancy.keep_answers(found, wanted["keeps_answers"], person)
    if turn := wanted.get("status"):
        TURNS[turn](found, person)
