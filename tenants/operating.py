"""How operator pages behave: changes go through the verbs or are recorded, and no page counts millions of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import cached_property
from unfold.admin import ModelAdmin

from tenants import audit, epochs
from tenants.models import Tenant
from tenants.problems import Refused

MOST_COUNTED = 10_000  # rows that a list pages through; a search finds the others


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


class ByVerb(Recorded):
    """Saves through the verbs, which check, record and raise the epoch; what they refuse is shown as a message.

    A page gives `make(person, obj)` and `alter(person, obj, changed)`; each answers the row as it is now.
    """

    most: dict[str, int] = {}  # of the fields that are numbers; the forms say so before a verb does
    make: Callable[[Any, Any], Model]
    alter: Callable[[Any, Any, dict[str, Any]], Model]

    def save_model(self, request: HttpRequest, obj: Model, form: ModelForm[Model], change: bool) -> None:
        if change:
            made = type(self).alter(request.user, obj, {name: form.cleaned_data[name] for name in form.changed_data})
        else:
            made = type(self).make(request.user, obj)
        obj.pk, obj._state.adding = made.pk, False

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.most:
            kwargs |= {"min_value": 0, "max_value": self.most[db_field.name]}
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return said(request, lambda: super(ByVerb, self).changeform_view(request, *args, **kwargs))

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return said(request, lambda: super(ByVerb, self).changelist_view(request, *args, **kwargs))

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return said(request, lambda: super(ByVerb, self).delete_view(request, *args, **kwargs))


def said(request: HttpRequest, work: Callable[[], HttpResponse]) -> HttpResponse:
    """What `work` answers; a refusal becomes a message on the same page, and nothing was changed."""
    try:
        with transaction.atomic():
            return work()
    except Refused as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(request.get_full_path())


class Short(Paginator):  # type: ignore[type-arg]  # not generic when it runs
    """Counts no further than it pages: a COUNT over a ledger reads all of it."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows[:MOST_COUNTED].count())


class ReadOnly(ModelAdmin):  # type: ignore[misc]
    """Rows to look at, as many as there may be."""

    paginator = Short
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
