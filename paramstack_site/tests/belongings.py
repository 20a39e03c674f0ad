"""Whose is which row: every model with a `tenant`, found by looking."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db.models import ForeignKey, Model

from tenants.models import Tenant


def owned() -> list[type[Model]]:
    """The models whose rows belong to a tenant."""
    return [model for model in apps.get_models() if any(field.name == "tenant" for field in model._meta.fields)]


def rows(tenant: Tenant) -> dict[str, list[dict[str, Any]]]:
    """Everything that belongs to `tenant`, with every value."""
    return {model.__name__: list(of(model, tenant).order_by("pk").values()) for model in owned()}


def strays(tenant: Tenant) -> list[str]:
    """References from rows of `tenant` to rows of somebody else; there must be none."""
    found = []
    for model in owned():
        for field in model._meta.fields:
            if isinstance(field, ForeignKey) and field.related_model in owned():
                elsewhere = of(model, tenant).exclude(**{field.name: None}).exclude(**{f"{field.name}__tenant": tenant})
                found += [f"{model.__name__}.{field.name} of {row.pk}" for row in elsewhere]
    return found


def of(model: type[Model], tenant: Tenant) -> Any:
    return model._default_manager.filter(tenant=tenant)
