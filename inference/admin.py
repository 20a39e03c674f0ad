"""Operator pages of what serves: the base models that tenants may train on."""

from __future__ import annotations

from django.contrib import admin

from inference.models import BaseModel
from tenants.admin import Recorded


@admin.register(BaseModel)
class BaseModelAdmin(Recorded):
    list_display = ["name", "source", "revision", "created_at"]
    search_fields = ["name"]
