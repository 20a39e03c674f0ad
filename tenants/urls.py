"""Console routes of settings, cost and receipts, under `/t/<slug>/`."""

from django.urls import path

from tenants.views import audit, backtest, cost, keys, limits, members, refusals, take, tenant, webhook

urlpatterns = [
    path("settings/", keys.settings, name="settings"),
    path("settings/keys/", keys.key_create, name="key_create"),
    path("settings/keys/<str:key_id>/", keys.key, name="key"),
    path("settings/keys/<str:key_id>/limits/", keys.key_limits, name="key_limits"),
    path("settings/keys/<str:key_id>/rotate/", keys.key_rotate, name="key_rotate"),
    path("settings/keys/<str:key_id>/revoke/", keys.key_revoke, name="key_revoke"),
    path("settings/limits/", limits.limits, name="limits"),
    path("settings/limits/quota/", limits.quota_set, name="quota_set"),
    path("settings/limits/budget/", limits.budget_set, name="budget_set"),
    path("settings/members/", members.members, name="members"),
    path("settings/members/<int:pk>/role/", members.member_role, name="member_role"),
    path("settings/members/<int:pk>/remove/", members.member_remove, name="member_remove"),
    path("settings/invitations/", members.invite, name="invite"),
    path("settings/invitations/<int:pk>/withdraw/", members.invitation_withdraw, name="invitation_withdraw"),
    path("settings/tenant/", tenant.tenant, name="tenant"),
    path("settings/tenant/status/", tenant.tenant_status, name="tenant_status"),
    path("settings/webhook/", webhook.webhook_set, name="webhook_set"),
    path("settings/webhook/test/", webhook.webhook_test, name="webhook_test"),
    path("settings/webhook/remove/", webhook.webhook_remove, name="webhook_remove"),
    path("settings/audit/", audit.audit, name="audit"),
    path("refusals/", refusals.refusals, name="refusals"),
    path("refusals/<str:decision>/", refusals.refusal, name="refusal"),
    path("usage/", cost.usage, name="usage"),
    path("usage/rows/", cost.usage_rows, name="usage_rows"),
    path("usage/rows.csv", take.usage_csv, name="usage_csv"),
    path("usage/focus.csv", take.usage_focus, name="usage_focus"),
    path("usage/statement/", take.statement, name="statement"),
    path("usage/statement/<str:month>.csv", take.statement_file, {"kind": "csv"}, name="statement_csv"),
    path("usage/statement/<str:month>.json", take.statement_file, {"kind": "json"}, name="statement_json"),
    path("usage/tenants/", take.usage_tenants, name="usage_tenants"),
    path("usage/backtest/", backtest.backtest, name="backtest"),
    path("usage/<str:request_id>/", cost.receipt, name="receipt"),
    path("usage/<str:request_id>/receipt.json", cost.receipt_file, name="receipt_file"),
]
