"""REST of a tenant: who calls, keys, usage, receipts. `endpoint` guards every REST view of the product.

A caller is a person (session) or an API key: the scope `manage` may do what an engineer may, the scope `usage` may
read. Addresses are `/api/v1/t/<slug>/...`; a stranger, person or key, gets 404.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import Http404
from rest_framework import serializers, status
from rest_framework.decorators import api_view
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from tenants import access, costs, keys, ledger
from tenants.models import APIKey, Tenant, UsageEvent

SCOPE_ROLES = {"manage": "engineer", "usage": "auditor"}
View = Callable[..., Response]


def endpoint(methods: list[str], read: str = "read", write: str = "engineer") -> Callable[[View], View]:
    """A REST view of one tenant: sets `request.tenant`, `request.role`, `request.person`, checks the capability."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: Request, slug: str, **kwargs: Any) -> Response:
            enter(request, slug)
            if not access.can(request.role, read if request.method == "GET" else write):  # type: ignore[attr-defined]
                raise PermissionDenied
            return view(request, **kwargs)

        guarded.permission_classes = [AllowAny]  # type: ignore[attr-defined]  # enter() answers 401 and 404 itself
        return api_view(methods)(guarded)

    return decorate


def enter(request: Any, slug: str) -> None:
    """Who calls, in which tenant; 401 without a caller, 404 for a stranger."""
    if request.auth is None and not request.user.is_authenticated:
        raise NotAuthenticated
    tenant = Tenant.objects.filter(slug=slug).exclude(status=Tenant.Status.CLOSED).first()
    role = tenant and (key_role(request.auth, tenant) if request.auth else access.role_of(request.user, tenant))
    if not role:
        raise Http404
    request.tenant, request.role = tenant, role
    request.person = None if request.auth else request.user


def key_role(key: APIKey, tenant: Tenant) -> str | None:
    if key.tenant_id != tenant.pk:
        return None
    return next((role for scope, role in SCOPE_ROLES.items() if scope in key.scopes), None)


class Pages(LimitOffsetPagination):
    max_limit = 500  # rows; a whole ledger is read page by page


def page(request: Request, rows: Any, serializer: type[serializers.Serializer[Any]], **context: Any) -> Response:
    """One page of rows: `?limit=&offset=`."""
    paginator = Pages()
    shown: Any = paginator.paginate_queryset(rows, request)
    return paginator.get_paginated_response(serializer(shown, many=True, context=context).data)


class KeySerializer(serializers.ModelSerializer[APIKey]):
    class Meta:
        model = APIKey
        fields = ["id", "name", "scopes", "created_at", "expires_at", "revoked_at"]


class UsageSerializer(serializers.ModelSerializer[UsageEvent]):
    class Meta:
        model = UsageEvent
        exclude = ["id", "tenant", "batch", "position"]


class NewKey(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80)
    scopes = serializers.MultipleChoiceField(choices=["inference", "usage", "manage"], default={"inference", "usage"})


@endpoint(["GET"])
def tenant(request: Any) -> Response:
    """The tenant, its limits, and the month so far."""
    found: Tenant = request.tenant
    return Response({"slug": found.slug, "name": found.name, "status": found.status, "month": costs.month(found)})


@endpoint(["GET", "POST"], write="keys")
def api_keys(request: Any) -> Response:
    """List keys, or create one: its text is in this answer and never again."""
    if request.method == "GET":
        return page(request, request.tenant.api_keys.all(), KeySerializer)
    wanted = NewKey(data=request.data)
    wanted.is_valid(raise_exception=True)
    scopes = sorted(wanted.validated_data["scopes"])
    if "manage" in scopes and not access.can(request.role, "engineer"):
        raise PermissionDenied
    key, text = keys.create(request.tenant, wanted.validated_data["name"], request.person, scopes=scopes)
    return Response(KeySerializer(key).data | {"key": text}, status=status.HTTP_201_CREATED)


@endpoint(["DELETE"], write="keys")
def api_key(request: Any, key_id: str) -> Response:
    """Revoke a key; it is refused from the next call on."""
    key = request.tenant.api_keys.filter(pk=key_id).first()
    if key is None:
        raise Http404
    keys.revoke(key, request.person)
    return Response(status=status.HTTP_204_NO_CONTENT)


@endpoint(["GET"])
def usage(request: Any) -> Response:
    """Ledger rows, newest first."""
    return page(request, request.tenant.usage.all(), UsageSerializer)


@endpoint(["GET"])
def receipt(request: Any, request_id: str) -> Response:
    """A ledger row with what proves it: `manage.py verify` checks it offline."""
    if not request.tenant.usage.filter(request_id=request_id).exists():
        raise Http404
    return Response(ledger.receipt(request.tenant, request_id))
