"""Operator pages: tenants, people, limits, budgets, prices; keys and history to read."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group
from django.db.models import Model
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.admin import ModelAdmin, TabularInline
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from tenants import limits, members, prices, tenancy
from tenants.models import (
    APIKey,
    AuditEntry,
    Budget,
    Invitation,
    LedgerProof,
    Member,
    Price,
    Quota,
    RefusalCount,
    Tenant,
    UsageEvent,
    User,
)
from tenants.operating import ByVerb, ReadOnly, Recorded

__all__ = ["ReadOnly", "Recorded"]
admin.site.unregister(Group)  # what a person may do is the membership's role


class Inline(TabularInline):  # type: ignore[misc]
    """To read; each row's own page changes it."""

    extra = 0
    show_change_link = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class MemberInline(Inline):
    model = Member


class QuotaInline(Inline):
    model = Quota


class BudgetInline(Inline):
    model = Budget


@admin.register(Tenant)
class TenantAdmin(ByVerb):
    list_display = ["name", "slug", "status", "time_zone", "created_at"]
    list_filter = ["status"]
    search_fields = ["name", "slug"]
    inlines = [MemberInline, QuotaInline, BudgetInline]
    turns = {
        Tenant.Status.SUSPENDED: tenancy.suspend,
        Tenant.Status.ACTIVE: tenancy.resume,
        Tenant.Status.CLOSED: tenancy.close,
    }

    @staticmethod
    def make(person: User, obj: Tenant) -> Tenant:
        return tenancy.create(person, obj.name, obj.slug, obj.time_zone)

    @staticmethod
    def alter(person: User, obj: Tenant, changed: dict[str, Any]) -> Tenant:
        if "name" in changed:
            tenancy.rename(obj, changed["name"], person)
        if "time_zone" in changed:
            tenancy.set_time_zone(obj, changed["time_zone"], person)
        if "status" in changed:
            TenantAdmin.turns[changed["status"]](obj, person)
        return obj

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["name", "slug", "time_zone", *(["status"] if obj else [])]

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
class MemberAdmin(ByVerb):
    list_display = ["user", "tenant", "role"]
    list_filter = ["tenant", "role"]
    autocomplete_fields = ["user", "tenant"]

    @staticmethod
    def make(person: User, obj: Member) -> Member:
        return members.add(obj.tenant, obj.user, obj.role, person)

    @staticmethod
    def alter(person: User, obj: Member, changed: dict[str, Any]) -> Member:
        return members.set_role(obj, changed.get("role", obj.role), person)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["user", "tenant"] if obj else []

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        members.remove(obj, request.user)  # type: ignore[arg-type]


@admin.register(Quota)
class QuotaAdmin(ByVerb):
    list_display = ["tenant", "key", *Quota.FIELDS]
    list_filter = ["tenant"]
    list_select_related = ["tenant", "key"]
    most = limits.MOST
    autocomplete_fields = ["tenant", "key"]

    @staticmethod
    def make(person: User, obj: Quota) -> Quota:
        return limits.set_quota(obj.tenant, person, key=obj.key, **{name: getattr(obj, name) for name in Quota.FIELDS})

    @staticmethod
    def alter(person: User, obj: Quota, changed: dict[str, Any]) -> Quota:
        wanted = {name: value for name, value in changed.items() if name in Quota.FIELDS}
        return limits.set_quota(obj.tenant, person, key=obj.key, **wanted)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["tenant", "key"] if obj else []


@admin.register(Budget)
class BudgetAdmin(ByVerb):
    list_display = ["tenant", "monthly_nano"]
    most = {"monthly_nano": limits.BudgetOutOfRange.most}
    autocomplete_fields = ["tenant"]

    @staticmethod
    def make(person: User, obj: Budget) -> Budget:
        return limits.set_budget(obj.tenant, obj.monthly_nano, person)

    @staticmethod
    def alter(person: User, obj: Budget, changed: dict[str, Any]) -> Budget:
        return limits.set_budget(obj.tenant, obj.monthly_nano, person)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["tenant"] if obj else []


@admin.register(Price)
class PriceAdmin(ByVerb):
    list_display = ["model", "kind", "input_nano_per_mtok", "output_nano_per_mtok", "valid_from", "valid_until"]
    list_filter = ["kind", "historical"]
    most = dict.fromkeys(prices.AMOUNTS, prices.MOST)
    search_fields = ["model"]

    @staticmethod
    def make(person: User, obj: Price) -> Price:
        names = [*prices.AMOUNTS, "valid_from", "valid_until", "kind", "historical", "basis"]
        return prices.set_(obj.model, person, **{name: getattr(obj, name) for name in names})

    @staticmethod
    def alter(person: User, obj: Price, changed: dict[str, Any]) -> Price:
        if changed and set(changed) <= {"valid_until"} and obj.valid_until:
            return prices.end(Price.objects.get(pk=obj.pk), person, obj.valid_until)
        return prices.change(Price.objects.get(pk=obj.pk), person, **changed)

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        prices.delete(obj, request.user)  # type: ignore[arg-type]


@admin.register(APIKey)
class APIKeyAdmin(ReadOnly):
    list_display = ["name", "id", "tenant", "created_at", "expires_at", "revoked_at", "last_used_at"]
    list_filter = ["tenant"]
    list_select_related = ["tenant"]
    search_fields = ["id__exact", "name"]
    exclude = ["salt", "digest"]


@admin.register(Invitation)
class InvitationAdmin(ReadOnly):
    list_display = ["email", "tenant", "role", "created_at", "expires_at", "accepted_at", "withdrawn_at"]
    list_filter = ["tenant"]
    exclude = ["digest"]


@admin.register(AuditEntry)
class AuditEntryAdmin(ReadOnly):
    list_display = ["at", "tenant", "actor", "key_id", "action", "subject"]
    list_filter = ["tenant"]
    list_select_related = ["tenant", "actor"]
    search_fields = ["action__exact", "subject__exact"]


@admin.register(UsageEvent)
class UsageEventAdmin(ReadOnly):
    list_display = ["request_id", "tenant", "occurred_at", "source", "status", "model", "cost_nano"]
    list_filter = ["tenant"]
    list_select_related = ["tenant"]
    search_fields = ["request_id__exact"]
    ordering = ["-id"]  # as they were booked: the one order that an index holds across tenants


@admin.register(LedgerProof)
class LedgerProofAdmin(ReadOnly):
    list_display = ["at", "holds", "tenants", "open_calls", "spent_nano", "position"]
    list_filter = ["holds"]


@admin.register(RefusalCount)
class RefusalCountAdmin(ReadOnly):
    list_display = ["minute", "tenant", "key_id", "limit", "count"]
    list_filter = ["tenant"]
    list_select_related = ["tenant"]
    ordering = ["-id"]
