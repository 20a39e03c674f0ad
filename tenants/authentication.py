"""API keys as callers of the REST API. Apart from `rest`, because Django REST framework imports it while it loads."""

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
        try:
            return AnonymousUser(), keys.open_(text)
        except keys.Malformed:
            sentence = _(
                "This is no Param Stack key: a character is wrong or missing. Copy it from ps_live_ to its end."
            )
            raise AuthenticationFailed(sentence, "mistyped_key") from None
        except keys.NotOpen as error:
            raise AuthenticationFailed(str(error)) from None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"
