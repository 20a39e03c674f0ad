"""REST of what belongs to no room: the status of a tenant and of what serves it."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.response import Response

from paramstack_site import status as standing
from tenants.rest import endpoint


class FindingSerializer(serializers.Serializer[Any]):
    side = serializers.CharField(help_text="ours or yours")
    name = serializers.CharField()
    state = serializers.CharField(help_text="live, warn, failed or unknown")
    sentence = serializers.CharField()
    todo = serializers.CharField(help_text="empty where nothing is to be done")


class FailedSerializer(serializers.Serializer[Any]):
    cause = serializers.CharField()
    side = serializers.CharField(help_text="ours, yours or unknown")
    title = serializers.CharField()
    todo = serializers.CharField()
    calls = serializers.IntegerField()


class StatusSerializer(serializers.Serializer[Any]):
    verdict = serializers.CharField(help_text="well, near, yours, ours, both or unknown")
    title = serializers.CharField()
    findings = FindingSerializer(many=True)
    calls_last_hour = serializers.IntegerField(help_text="admitted ones")
    failed_last_hour = FailedSerializer(many=True, help_text="refused by limits and budget among them")


@endpoint(["GET"], read="usage", answers=StatusSerializer)
def status(request: Any) -> Response:
    """Is it me or the engine: what fails on whose side, and what to do about it."""
    return Response(StatusSerializer(standing.plain(standing.read(request.tenant))).data)
