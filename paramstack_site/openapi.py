"""The OpenAPI schema of the REST API. Its generator is imported when somebody asks, not at the start of every command.

What a view takes and answers stands at its `endpoint`; its docstring is the operation's description.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework import serializers

from paramstack_site.problem_details import MEDIA_TYPE

ONCE = {"type": "string", "pattern": "^[!-~]{1,80}$"}


class ProblemDetails(serializers.Serializer[Any]):
    """RFC 9457."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    errors = serializers.DictField(required=False, help_text="sentences by field")  # type: ignore[assignment]


class PageQuery(serializers.Serializer[Any]):
    limit = serializers.IntegerField(required=False, min_value=1, help_text="rows, at most 500")
    cursor = serializers.CharField(required=False, help_text="from the last answer's next")


def respond(request: HttpRequest, routes: Iterable[Any]) -> HttpResponseBase:
    from drf_spectacular.views import SpectacularAPIView

    described = _described()
    for route in routes:
        route.callback.cls.schema = described()
    return SpectacularAPIView.as_view()(request)


@cache
def _described() -> Any:
    from drf_spectacular.extensions import OpenApiAuthenticationExtension, OpenApiSerializerFieldExtension
    from drf_spectacular.openapi import AutoSchema
    from drf_spectacular.types import OpenApiTypes
    from drf_spectacular.utils import OpenApiParameter, inline_serializer

    class Key(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
        target_class, name = "tenants.authentication.KeyAuthentication", "key"

        def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
            return {"type": "http", "scheme": "bearer", "description": "ps_live_..., scope manage or usage"}

    class Amount(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call]
        target_class = "tenants.rest.Dollars"

        def map_serializer_field(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
            return {"type": "string", "format": "decimal", "example": "0.15"}

    class Described(AutoSchema):
        """Reads what `rest.endpoint` was told."""

        def get_request_serializer(self) -> Any:
            return getattr(self.view, "takes", {}).get(self.method)

        def get_response_serializers(self) -> Any:
            problems = {("4XX", MEDIA_TYPE): ProblemDetails}
            if self.method == "DELETE":
                return {204: None, **problems}
            code = 201 if self.method == "POST" and getattr(self.view, "creates", False) else 200
            return {code: self._answer() or OpenApiTypes.OBJECT, **problems}

        def _answer(self) -> Any:
            answers, listed = getattr(self.view, "answers", None), getattr(self.view, "lists", None)
            if self.method != "GET" or listed is None:
                return answers or listed
            fields = {"next": serializers.URLField(allow_null=True), "results": listed(many=True)}
            return inline_serializer(f"{listed.__name__.removesuffix('Serializer')}Page", fields)

        def get_override_parameters(self) -> list[Any]:
            if self.method == "POST":
                return [OpenApiParameter("Idempotency-Key", ONCE, "header", description="sent again, it is done once")]
            found = [PageQuery] if getattr(self.view, "lists", None) else []
            return [*found, *filter(None, [getattr(self.view, "query", None)])] if self.method == "GET" else []

        def get_operation_id(self) -> str:
            return f"{getattr(self.view, 'named', self.path)}_{self.method.lower()}"

        def get_tags(self) -> list[str]:
            parts = self.path.removeprefix("/api/v1/").removeprefix("t/{slug}/").split("/")
            return [parts[0] or "tenant"]

    return Described
