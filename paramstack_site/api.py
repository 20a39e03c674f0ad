"""The REST API: its routes, and the one place where errors of the verbs become HTTP."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path, re_path
from rest_framework import status
from rest_framework.response import Response

from attestation.signing import VerificationError
from inference import aliases, registry, rollouts
from inference.api import serving, traffic
from inference.engines import lora
from inference.engines.client import EngineError
from paramstack_site import openapi, problem_details, rest
from tenants.api import costs, keys, limits, members, prices, refusals, tenant, usage
from tenants.problems import Refused
from training import api as training
from training.problems import Problem


def schema(request: HttpRequest) -> HttpResponseBase:
    """The OpenAPI schema."""
    return openapi.respond(request, [*ROUTES, *PLATFORM])


ROUTES = [
    path("", tenant.tenant),
    path("keys/", keys.api_keys),
    path("keys/<str:key_id>/", keys.api_key),
    path("keys/<str:key_id>/rotate/", keys.rotate),
    path("keys/<str:key_id>/quota/", limits.key_quota),
    path("quota/", limits.quota),
    path("budget/", limits.budget),
    path("members/", members.member_list),
    path("members/<int:pk>/", members.member),
    path("invitations/", members.invitation_list),
    path("invitations/<int:pk>/", members.invitation),
    path("prices/", prices.price_list),
    path("prices/from-gpu/", prices.gpu_price),
    path("prices/<int:pk>/", prices.price),
    path("prices/<int:pk>/end/", prices.price_end),
    path("usage/", usage.usage),
    path("usage/summary/", costs.summary),
    path("usage/rows.csv", costs.usage_csv),
    path("usage/focus.csv", costs.usage_focus),
    path("usage/backtest/", costs.backtest_),
    path("statements/", costs.statement_list),
    path("statements/<str:month>/", costs.statement),
    path("receipts/<str:request_id>/", usage.receipt),
    path("refusals/", refusals.refusal_list),
    path("refusals/<str:decision>/", refusals.refusal),
    path("datasets/", training.dataset_list),
    path("datasets/<uuid:dataset_id>/", training.dataset),
    path("preferences/", training.rlaif_list),
    path("pairs/", training.pair_list),
    path("pairs/<uuid:pair_id>/decision/", training.decision),
    path("exports/", training.export_list),
    path("runs/", training.run_list),
    path("runs/<uuid:run_id>/", training.run),
    path("jobs/<uuid:job_id>/", training.job),
    path("adapters/", serving.adapters),
    path("adapters/<uuid:adapter_id>/", serving.adapter),
    path("adapters/<uuid:adapter_id>/verify/", serving.verify),
    path("adapters/<uuid:adapter_id>/loaded/", serving.loaded),
    path("aliases/", serving.aliases),
    path("aliases/<slug:name>/", serving.alias),
    path("engine-fields/", serving.engine_fields),
    path("feedback/", traffic.feedback),
    path("feedback/summary/", traffic.feedback_summary),
    path("traffic/", traffic.traffic),
    path("calls/", traffic.calls),
    path("calls.csv", traffic.calls_csv),
    path("calls/<str:request_id>/", traffic.call),
    path("playground/key/", traffic.playground_key),
    path("status/", rest.status),
    path("rollouts/", serving.rollout_list),
    path("rollouts/<uuid:rollout_id>/", serving.rollout),
    path("rollouts/<uuid:rollout_id>/stop/", serving.stop),
    path("rollouts/<uuid:rollout_id>/promote/", serving.promote),
]
PLATFORM = [path("tenants/", tenant.tenant_list)]
urlpatterns = [
    path("schema/", schema, name="api-schema"),
    *PLATFORM,
    *(path(f"t/<slug:slug>/{route.pattern}", route.callback) for route in ROUTES),
    re_path("", problem_details.nowhere),
]

STATUS: dict[type[Exception], int] = {
    Problem: status.HTTP_422_UNPROCESSABLE_ENTITY,
    VerificationError: status.HTTP_422_UNPROCESSABLE_ENTITY,
    Refused: status.HTTP_422_UNPROCESSABLE_ENTITY,  # or the error's own
    lora.Unsound: status.HTTP_422_UNPROCESSABLE_ENTITY,
    registry.UnknownBaseModel: status.HTTP_422_UNPROCESSABLE_ENTITY,
    aliases.UnknownTarget: status.HTTP_422_UNPROCESSABLE_ENTITY,
    aliases.NotServable: status.HTTP_422_UNPROCESSABLE_ENTITY,
    rollouts.BadWeight: status.HTTP_422_UNPROCESSABLE_ENTITY,
    registry.AdapterInUse: status.HTTP_409_CONFLICT,
    rollouts.AlreadyRunning: status.HTTP_409_CONFLICT,
    rollouts.NotRunning: status.HTTP_409_CONFLICT,
    EngineError: status.HTTP_503_SERVICE_UNAVAILABLE,
}


def handle(error: Exception, context: dict[str, Any]) -> Response | None:
    """What the settings name: every error of the API as problem details."""
    return problem_details.handle(error, context, STATUS)
