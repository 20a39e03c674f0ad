"""Operator pages: tenants, people, keys (to read), limits, budgets, prices. A change raises the tenant's epoch."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from tenants import audit, epochs
from tenants.models import APIKey, AuditEntry, Budget, Member, Price, Quota, Tenant, User

admin.site.unregister(Group)  # what a person may do is the membership's role


class Recorded(ModelAdmin):  # type: ignore[misc]  # unfold ships no types
    """Writes an audit entry for every row that an operator makes, changes or deletes, and raises its tenant's epoch."""

    def save_model(self, request: HttpRequest, obj: Model, form: ModelForm[Model], change: bool) -> None:
        super().save_model(request, obj, form, change)
        after = {name: str(form.cleaned_data[name]) for name in form.changed_data if name in form.cleaned_data}
        record(request, obj, "change" if change else "create", after)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        super().save_formset(request, form, formset, change)
        for obj in formset.new_objects:
            record(request, obj, "create")
        for obj, fields in formset.changed_objects:
            record(request, obj, "change", {name: str(getattr(obj, name)) for name in fields})
        for obj in formset.deleted_objects:
            record(request, obj, "delete")

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        record(request, obj, "delete")
        super().delete_model(request, obj)

    @transaction.atomic
    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Model]) -> None:
        for obj in queryset:
            self.delete_model(request, obj)


def record(request: HttpRequest, obj: Model, verb: str, after: dict[str, str] | None = None) -> None:
    tenant = obj if isinstance(obj, Tenant) else getattr(obj, "tenant", None)
    action = f"{obj._meta.model_name}.{verb}"
    audit.record(request.user, action, str(obj), None, after, tenant)  # type: ignore[arg-type]  # behind admin's login
    if tenant:
        epochs.raise_(tenant)
    else:
        epochs.raise_all()  # a price or a base model is everybody's


class ReadOnly(ModelAdmin):  # type: ignore[misc]
    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class MemberInline(TabularInline):  # type: ignore[misc]
    model = Member
    extra = 0
    autocomplete_fields = ["user"]


class QuotaInline(TabularInline):  # type: ignore[misc]
    model = Quota
    extra = 0


class BudgetInline(TabularInline):  # type: ignore[misc]
    model = Budget
    extra = 0


@admin.register(Tenant)
class TenantAdmin(Recorded):
    list_display = ["name", "slug", "status", "created_at"]
    list_filter = ["status"]
    search_fields = ["name", "slug"]
    inlines = [MemberInline, QuotaInline, BudgetInline]

    def get_prepopulated_fields(self, request: HttpRequest, obj: Any = None) -> dict[str, list[str]]:
        return {} if obj else {"slug": ["name"]}

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["slug"] if obj else []  # addresses and the engine's names hold it

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # a tenant is closed, never deleted: its ledger and evidence stay


@admin.register(User)
class PersonAdmin(UserAdmin, ModelAdmin):  # type: ignore[misc,type-arg]
    form, add_form, change_password_form = UserChangeForm, UserCreationForm, AdminPasswordChangeForm
    fieldsets = [
        (None, {"fields": ["username", "password"]}),
        (_("Personal info"), {"fields": ["first_name", "last_name", "email", "language", "theme"]}),
        (_("Permissions"), {"fields": ["is_active", "is_staff", "is_superuser"]}),
    ]
    list_display = ["username", "email", "is_staff", "is_active", "last_login"]
    list_filter = ["is_staff", "is_superuser", "is_active"]


@admin.register(Member)
class MemberAdmin(Recorded):
    list_display = ["user", "tenant", "role"]
    list_filter = ["tenant", "role"]
    autocomplete_fields = ["user", "tenant"]


@admin.register(APIKey)
class APIKeyAdmin(ReadOnly):
    list_display = ["name", "id", "tenant", "created_at", "revoked_at"]
    list_filter = ["tenant"]
    exclude = ["salt", "digest"]


@admin.register(Quota)
class QuotaAdmin(Recorded):
    list_display = ["tenant", "requests_per_minute"]


@admin.register(Budget)
class BudgetAdmin(Recorded):
    list_display = ["tenant", "monthly_nano"]


@admin.register(Price)
class PriceAdmin(Recorded):
    list_display = ["model", "input_nano_per_mtok", "output_nano_per_mtok", "valid_from"]
    search_fields = ["model"]


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly):
    list_display = ["at", "tenant", "actor", "action", "subject"]
    list_filter = ["tenant", "action"]
