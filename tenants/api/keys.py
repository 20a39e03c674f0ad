"""REST of API keys."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from rest_framework import serializers, status
from rest_framework.exceptions import PermissionDenied
from rest_framework.response import Response

from tenants import access, keys
from tenants.models import APIKey
from tenants.rest import endpoint, page


class KeySerializer(serializers.ModelSerializer[APIKey]):
    class Meta:
        model = APIKey
        fields = ["id", "name", "scopes", "created_at", "expires_at", "revoked_at"]


class NewKey(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80)
    scopes = serializers.MultipleChoiceField(choices=["inference", "usage", "manage"], default={"inference", "usage"})


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
