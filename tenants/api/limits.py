"""REST of limits: the tenant's, each key's, and the month's budget."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied
from rest_framework.response import Response

from tenants import access, limits
from tenants.api import keys
from tenants.models import APIKey, Budget, Quota
from tenants.rest import Dollars, endpoint, valid


class QuotaSerializer(serializers.Serializer[Any]):
    """Null: no limit of that kind. 0: nothing passes. Tokens are input and output together."""

    requests_per_second = serializers.IntegerField(required=False, allow_null=True)
    requests_per_minute = serializers.IntegerField(required=False, allow_null=True)
    tokens_per_second = serializers.IntegerField(required=False, allow_null=True)
    tokens_per_minute = serializers.IntegerField(required=False, allow_null=True)
    concurrent_calls = serializers.IntegerField(required=False, allow_null=True)


class BudgetSerializer(serializers.Serializer[Any]):
    monthly = Dollars(source="monthly_nano", help_text='dollars a calendar month of the tenant, such as "250.00"')


@endpoint(["GET", "PATCH"], read="usage", write="own", takes={"PATCH": QuotaSerializer}, answers=QuotaSerializer)
def quota(request: Any) -> Response:
    """The tenant's limits; PATCH changes those it names, from the next call on."""
    return _quota(request, None)


@endpoint(["GET", "PATCH"], read="usage", write="keys", takes={"PATCH": QuotaSerializer}, answers=QuotaSerializer)
def key_quota(request: Any, key_id: str) -> Response:
    """A key's limits, which hold beside the tenant's; PATCH changes those it names."""
    key = keys.find(request, key_id)
    if request.method == "PATCH" and not access.grants(request.role, key.scopes):
        raise PermissionDenied
    return _quota(request, key)


def _quota(request: Any, key: APIKey | None) -> Response:
    if request.method == "PATCH":
        limits.set_quota(request.tenant, request.person, key=key, **valid(QuotaSerializer, request.data))
    found = Quota.objects.filter(tenant=request.tenant, key=key).first()
    return Response(QuotaSerializer(found or Quota()).data)


@endpoint(["GET", "PUT"], read="usage", write="own", takes={"PUT": BudgetSerializer}, answers=BudgetSerializer)
def budget(request: Any) -> Response:
    """The most that a month may cost, in dollars as decimal text; null: none is set, and no call is admitted."""
    if request.method == "PUT":
        limits.set_budget(request.tenant, valid(BudgetSerializer, request.data)["monthly_nano"], request.person)
    found = Budget.objects.filter(tenant=request.tenant).first()
    return Response(BudgetSerializer(found).data if found else {"monthly": None})
