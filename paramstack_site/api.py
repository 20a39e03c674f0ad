"""The REST API: its routes, and the one place where errors of the verbs become HTTP."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path
from rest_framework import status
from rest_framework.response import Response
from rest_framework.views import exception_handler

from attestation.signing import VerificationError
from inference import aliases, registry, rollouts
from inference import api as inference
from inference.engines.client import EngineError
from tenants import keys as api_keys
from tenants.api import costs, keys, tenant, usage
from training import api as training
from training.problems import Problem


def schema(request: HttpRequest) -> HttpResponseBase:
    """The OpenAPI schema. Its generator is imported when somebody asks: it is a tenth of the start of every command."""
    from drf_spectacular.openapi import AutoSchema
    from drf_spectacular.views import SpectacularAPIView

    for route in ROUTES:
        view: Any = route.callback
        view.cls.schema = AutoSchema()
    return SpectacularAPIView.as_view()(request)


ROUTES = [
    path("", tenant.tenant),
    path("keys/", keys.api_keys),
    path("keys/<str:key_id>/", keys.api_key),
    path("usage/", usage.usage),
    path("usage/summary/", costs.summary),
    path("usage/rows.csv", costs.usage_csv),
    path("usage/focus.csv", costs.usage_focus),
    path("usage/backtest/", costs.backtest_),
    path("statements/", costs.statement_list),
    path("statements/<str:month>/", costs.statement),
    path("receipts/<str:request_id>/", usage.receipt),
    path("datasets/", training.dataset_list),
    path("datasets/<uuid:dataset_id>/", training.dataset),
    path("preferences/", training.rlaif_list),
    path("pairs/", training.pair_list),
    path("pairs/<uuid:pair_id>/decision/", training.decision),
    path("exports/", training.export_list),
    path("runs/", training.run_list),
    path("runs/<uuid:run_id>/", training.run),
    path("jobs/<uuid:job_id>/", training.job),
    path("adapters/", inference.adapters),
    path("adapters/<uuid:adapter_id>/", inference.adapter),
    path("adapters/<uuid:adapter_id>/verify/", inference.verify),
    path("adapters/<uuid:adapter_id>/loaded/", inference.loaded),
    path("aliases/", inference.aliases),
    path("rollouts/", inference.rollout_list),
    path("rollouts/<uuid:rollout_id>/", inference.rollout),
    path("rollouts/<uuid:rollout_id>/stop/", inference.stop),
    path("rollouts/<uuid:rollout_id>/promote/", inference.promote),
]
urlpatterns = [
    path("schema/", schema, name="api-schema"),
    *(path(f"t/<slug:slug>/{route.pattern}", route.callback) for route in ROUTES),
]

STATUS: dict[type[Exception], int] = {
    Problem: status.HTTP_422_UNPROCESSABLE_ENTITY,
    VerificationError: status.HTTP_422_UNPROCESSABLE_ENTITY,
    api_keys.UnknownScope: status.HTTP_422_UNPROCESSABLE_ENTITY,
    registry.UnknownBaseModel: status.HTTP_422_UNPROCESSABLE_ENTITY,
    aliases.NotServable: status.HTTP_422_UNPROCESSABLE_ENTITY,
    rollouts.BadWeight: status.HTTP_422_UNPROCESSABLE_ENTITY,
    registry.AdapterInUse: status.HTTP_409_CONFLICT,
    rollouts.AlreadyRunning: status.HTTP_409_CONFLICT,
    rollouts.NotRunning: status.HTTP_409_CONFLICT,
    EngineError: status.HTTP_503_SERVICE_UNAVAILABLE,
}


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's own errors as they are; a verb's error as `{"detail": sentence, "rows": ...}` with its status."""
    for kind, code in STATUS.items():
        if isinstance(error, kind):
            return Response({"detail": str(error), **details(error)}, status=code)
    return exception_handler(error, context)


def details(error: Exception) -> dict[str, Any]:
    """What a program can use beside the sentence: the bad rows of an import."""
    parsed = getattr(error, "parsed", None)
    if parsed is None:
        return {}
    return {"rows": [{"line": row.line, "column": row.column, "reason": row.reason} for row in parsed.errors]}
