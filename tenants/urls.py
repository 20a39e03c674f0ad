"""Console routes of settings, cost and receipts, under `/t/<slug>/`."""

from django.urls import path

from tenants.views import cost, settings

urlpatterns = [
    path("settings/", settings.settings, name="settings"),
    path("settings/keys/", settings.key_create, name="key_create"),
    path("settings/keys/<str:key_id>/revoke/", settings.key_revoke, name="key_revoke"),
    path("settings/members/", settings.members, name="members"),
    path("settings/audit/", settings.audit, name="audit"),
    path("usage/", cost.usage, name="usage"),
    path("usage/<str:request_id>/", cost.receipt, name="receipt"),
    path("usage/<str:request_id>/receipt.json", cost.receipt_file, name="receipt_file"),
]
