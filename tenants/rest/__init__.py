"""The guard of every REST view of the product.

A caller is a person (session) or an API key: the scope `manage` may do what an engineer may, the scope `usage` may
read what was used, what it cost and what limits it. Addresses are `/api/v1/t/<slug>/...`; a stranger, person or key,
gets 404.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.exceptions import BadRequest
from django.http import Http404
from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.decorators import api_view
from rest_framework.exceptions import NotAuthenticated, PermissionDenied
from rest_framework.permissions import SAFE_METHODS, AllowAny
from rest_framework.response import Response

from tenants import access, audit, money
from tenants.models import APIKey, Tenant
from tenants.rest import idempotency
from tenants.rest.paging import MOST_ROWS, page

__all__ = ["MOST_ROWS", "Dollars", "View", "endpoint", "enter", "key_role", "operate", "page", "platform", "valid"]
SCOPE_ROLES = {"manage": "engineer", "usage": "usage"}
View = Callable[..., Response]


def endpoint(
    methods: list[str], read: str = "read", write: str = "engineer", **described: Any
) -> Callable[[View], View]:
    """A REST view of one tenant: sets `request.tenant`, `request.role`, `request.person`, checks the capability.

    A POST with an Idempotency-Key is done once. What is recorded in the audit log names the key that acts.
    `described` is for the OpenAPI schema: `takes` (a serializer by method), `answers`, `lists` (the serializer of a
    page's rows), `query` (of the address), `creates` (a POST answers 201).
    """

    def decorate(view: View) -> View:
        def guarded(request: Any, slug: str, **kwargs: Any) -> Response:
            _readable(request, [slug, *kwargs.values()])
            enter(request, slug)
            if not access.can(request.role, read if request.method in SAFE_METHODS else write):
                raise PermissionDenied
            return _do(view, request, kwargs)

        return _view(view, guarded, methods, described)

    return decorate


def platform(methods: list[str], **described: Any) -> Callable[[View], View]:
    """A REST view of no tenant: `request.tenant` is None; 401 without a caller. The view checks the rest."""

    def decorate(view: View) -> View:
        def guarded(request: Any, **kwargs: Any) -> Response:
            _readable(request, list(kwargs.values()))
            _identify(request)
            request.tenant = None
            return _do(view, request, kwargs)

        return _view(view, guarded, methods, described)

    return decorate


def operate(request: Any) -> None:
    """Only the platform's operator goes on; anybody else gets 403."""
    if request.person is None or not request.person.is_superuser:
        raise PermissionDenied


def _view(view: View, guarded: View, methods: list[str], described: dict[str, Any]) -> View:
    guarded = wraps(view)(guarded)
    guarded.permission_classes = [AllowAny]  # type: ignore[attr-defined]  # the guard answers 401 and 404 itself
    made: Any = api_view(methods)(guarded)
    for name, value in {"named": view.__name__.strip("_"), **described}.items():
        setattr(made.cls, name, value)
    return made  # type: ignore[no-any-return]


def _do(view: View, request: Any, kwargs: dict[str, Any]) -> Response:
    with audit.acting(request.auth):
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        if key is None:
            return view(request, **kwargs)
        return idempotency.once(request, key, lambda: view(request, **kwargs))


def _readable(request: Any, parts: list[Any]) -> None:
    """No text holds the character NUL, which PostgreSQL does not store."""
    if any("\x00" in str(part) for part in parts):
        raise Http404
    query = request.query_params
    written = b"\\u0000" in request.body if str(request.content_type).startswith("application/json") else False
    if written or any("\x00" in text for name in query for text in (name, *query.getlist(name))):
        raise BadRequest(_("Text cannot hold the character NUL."))


def _identify(request: Any) -> None:
    if request.auth is None and not request.user.is_authenticated:
        raise NotAuthenticated
    request.person = None if request.auth else request.user


def enter(request: Any, slug: str) -> None:
    """Who calls, in which tenant; 401 without a caller, 404 for a stranger."""
    _identify(request)
    tenant = Tenant.objects.filter(slug=slug).exclude(status=Tenant.Status.CLOSED).first()
    role = tenant and (key_role(request.auth, tenant) if request.auth else access.role_of(request.user, tenant))
    if not role:
        raise Http404
    request.tenant, request.role = tenant, role


def key_role(key: APIKey, tenant: Tenant) -> str | None:
    if key.tenant_id != tenant.pk:
        return None
    return next((role for scope, role in SCOPE_ROLES.items() if scope in key.scopes), None)


def valid(serializer: type[serializers.Serializer[Any]], data: Any, **options: Any) -> dict[str, Any]:
    """What the body says, checked; raises DRF's ValidationError, which names each field."""
    checked = serializer(data=data, **options)
    checked.is_valid(raise_exception=True)
    return dict(checked.validated_data)


class Dollars(serializers.Field[int, Any, str, Any]):
    """Nano-dollars inside, an exact decimal of dollars in quotes outside."""

    def to_representation(self, value: int) -> str:
        return money.dollars(value)

    def to_internal_value(self, data: Any) -> int:
        try:
            return money.nano(data)
        except money.BadAmount as error:
            raise serializers.ValidationError(str(error)) from error
