"""Console routes of settings, cost and receipts, under `/t/<slug>/`."""

from django.urls import path

from tenants import views

urlpatterns = [
    path("settings/", views.settings, name="settings"),
    path("settings/keys/", views.key_create, name="key_create"),
    path("settings/keys/<str:key_id>/revoke/", views.key_revoke, name="key_revoke"),
    path("settings/members/", views.members, name="members"),
    path("settings/audit/", views.audit, name="audit"),
    path("usage/", views.usage, name="usage"),
    path("usage/<str:request_id>/", views.receipt, name="receipt"),
    path("usage/<str:request_id>/receipt.json", views.receipt_file, name="receipt_file"),
]
