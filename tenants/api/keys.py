"""REST of API keys. A key's text is in the answer that makes it, and never again."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from django.http import Http404
from rest_framework import serializers, status
from rest_framework.exceptions import PermissionDenied
from rest_framework.response import Response

from tenants import access, keys
from tenants.models import APIKey
from tenants.rest import endpoint, page, valid

LONGEST_GRACE = int(keys.LONGEST_GRACE.total_seconds())


class KeySerializer(serializers.ModelSerializer[APIKey]):
    """`revoked_at` in the future is the end of the grace of a key that was replaced. A `playground` key is a
    person's own for an hour.
    """

    class Meta:
        model = APIKey
        fields = [
            "id",
            "name",
            "scopes",
            "allowed_models",
            "default_max_tokens",
            "created_at",
            "expires_at",
            "revoked_at",
            "rotated_from",
            "last_used_at",
            "playground",
        ]


class FreshKey(KeySerializer):
    key = serializers.CharField(help_text="its text, shown once")

    class Meta(KeySerializer.Meta):
        fields = [*KeySerializer.Meta.fields, "key"]


class KeyChange(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80, required=False)
    scopes = serializers.MultipleChoiceField(choices=keys.SCOPES, required=False)
    allowed_models = serializers.ListField(
        child=serializers.CharField(max_length=120),
        max_length=keys.MOST_MODELS,
        required=False,
        help_text="empty: every model of the tenant",
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True, help_text="in the future; null: never")
    default_max_tokens = serializers.IntegerField(
        min_value=1, max_value=keys.MOST_TOKENS, required=False, help_text="of an answer, when the call names no bound"
    )


class NewKey(KeyChange):
    name = serializers.CharField(max_length=80)
    scopes = serializers.MultipleChoiceField(choices=keys.SCOPES, default={"inference", "usage"})


class Rotation(serializers.Serializer[Any]):
    grace_seconds = serializers.IntegerField(
        min_value=0, max_value=LONGEST_GRACE, default=0, help_text="how long the old key still works, at most 30 days"
    )


@endpoint(["GET", "POST"], write="keys", takes={"POST": NewKey}, lists=KeySerializer, answers=FreshKey, creates=True)
def api_keys(request: Any) -> Response:
    """GET lists keys, newest first; POST creates one: its text is in this answer and never again."""
    if request.method != "POST":
        return page(request, request.tenant.api_keys.lasting(), KeySerializer)
    wanted = valid(NewKey, request.data)
    _may(request, wanted["scopes"])
    wanted["scopes"] = sorted(wanted["scopes"])
    key, text = keys.create(request.tenant, wanted.pop("name"), request.person, wanted.pop("scopes"), **wanted)
    return _shown_once(key, text)


@endpoint(["GET", "PATCH", "DELETE"], write="keys", takes={"PATCH": KeyChange}, answers=KeySerializer)
def api_key(request: Any, key_id: str) -> Response:
    """One key. PATCH changes its settings; DELETE revokes it: it is refused from the next call on."""
    key = find(request, key_id)
    if request.method == "DELETE":
        keys.revoke(key, request.person)
        return Response(status=status.HTTP_204_NO_CONTENT)
    if request.method == "PATCH":
        wanted = valid(KeyChange, request.data)
        if "scopes" in wanted:
            wanted["scopes"] = sorted(wanted["scopes"])
        _may(request, {*key.scopes, *wanted.get("scopes", ())})
        key = keys.change(key, request.person, **wanted)
    return Response(KeySerializer(key).data)


@endpoint(["POST"], write="keys", takes={"POST": Rotation}, answers=FreshKey, creates=True)
def rotate(request: Any, key_id: str) -> Response:
    """A key with the same settings and limits; the old one goes on working for `grace_seconds`."""
    key = find(request, key_id)
    _may(request, key.scopes)
    wanted = valid(Rotation, request.data)
    return _shown_once(*keys.rotate(key, request.person, timedelta(seconds=wanted["grace_seconds"])))


def find(request: Any, key_id: str) -> APIKey:
    """The tenant's key of that id; raises Http404."""
    key: APIKey | None = request.tenant.api_keys.filter(pk=key_id).first()
    if key is None:
        raise Http404
    return key


def _may(request: Any, scopes: Collection[str]) -> None:
    """Who gets the text of a key, or opens it further, gets its rights."""
    if not access.grants(request.role, scopes):
        raise PermissionDenied


def _shown_once(key: APIKey, text: str) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(KeySerializer(key).data | {"key": text}, status=status.HTTP_201_CREATED, headers=headers)
