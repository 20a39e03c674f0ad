"""Console routes of what serves, under `/t/<slug>/`."""

from django.urls import path

from inference import views

urlpatterns = [
    path("adapters/", views.adapters, name="adapters"),
    path("adapters/<uuid:pk>/", views.adapter, name="adapter"),
    path("adapters/<uuid:pk>/verify/", views.adapter_verify, name="adapter_verify"),
    path("adapters/<uuid:pk>/load/", views.adapter_load, name="adapter_load"),
    path("adapters/<uuid:pk>/unload/", views.adapter_unload, name="adapter_unload"),
    path("adapters/<uuid:pk>/statement.json", views.adapter_statement, name="adapter_statement"),
    path("rollouts/", views.rollouts, name="rollouts"),
    path("rollouts/aliases/", views.alias_create, name="alias_create"),
    path("rollouts/fallback/", views.alias_fallback, name="alias_fallback"),
    path("rollouts/start/", views.rollout_start, name="rollout_start"),
    path("rollouts/<uuid:pk>/", views.rollout, name="rollout"),
    path("rollouts/<uuid:pk>/weight/", views.rollout_weight, name="rollout_weight"),
    path("rollouts/<uuid:pk>/stop/", views.rollout_stop, name="rollout_stop"),
    path("rollouts/<uuid:pk>/promote/", views.rollout_promote, name="rollout_promote"),
    path("playground/", views.playground, name="playground"),
    path("settings/policy/", views.policy, name="policy"),
]
