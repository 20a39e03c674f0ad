"""API keys as callers of the REST API. Apart from `api`, because Django REST framework imports it while it loads."""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser
from django.utils.translation import gettext as _
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from tenants import keys
from tenants.models import APIKey


class KeyAuthentication(BaseAuthentication):
    """`Authorization: Bearer ps_live_...`: the caller is the key; `request.auth` carries it."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, APIKey] | None:
        scheme, _space, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        key = keys.authenticate(text)
        if key is None:
            raise AuthenticationFailed(_("This API key is unknown, expired or revoked."))
        return AnonymousUser(), key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
