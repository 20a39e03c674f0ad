"""Console routes of what serves, under `/t/<slug>/`."""

from django.urls import path

from inference.views import calls, playground, serving, traffic

urlpatterns = [
    path("adapters/", serving.adapters, name="adapters"),
    path("adapters/<uuid:pk>/", serving.adapter, name="adapter"),
    path("adapters/<uuid:pk>/verify/", serving.adapter_verify, name="adapter_verify"),
    path("adapters/<uuid:pk>/load/", serving.adapter_load, name="adapter_load"),
    path("adapters/<uuid:pk>/unload/", serving.adapter_unload, name="adapter_unload"),
    path("adapters/<uuid:pk>/statement.json", serving.adapter_statement, name="adapter_statement"),
    path("rollouts/", serving.rollouts, name="rollouts"),
    path("rollouts/aliases/", serving.alias_create, name="alias_create"),
    path("rollouts/fallback/", serving.alias_fallback, name="alias_fallback"),
    path("rollouts/start/", serving.rollout_start, name="rollout_start"),
    path("rollouts/<uuid:pk>/", serving.rollout, name="rollout"),
    path("rollouts/<uuid:pk>/weight/", serving.rollout_weight, name="rollout_weight"),
    path("rollouts/<uuid:pk>/stop/", serving.rollout_stop, name="rollout_stop"),
    path("rollouts/<uuid:pk>/promote/", serving.rollout_promote, name="rollout_promote"),
    path("traffic/", traffic.traffic, name="traffic"),
    path("traffic/calls/", calls.calls, name="calls"),
    path("traffic/calls.csv", calls.calls_csv, name="calls_csv"),
    path("traffic/calls/<str:request_id>/", calls.call, name="call"),
    path("traffic/feedback/", traffic.feedback, name="feedback"),
    path("playground/", playground.playground, name="playground"),
    path("playground/key/", playground.playground_key, name="playground_key"),
    path("settings/policy/", serving.policy, name="policy"),
]
