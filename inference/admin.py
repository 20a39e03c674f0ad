"""Operator pages of what serves: the base models that tenants may train on."""

from __future__ import annotations

from django.contrib import admin

from inference.models import BaseModel, EngineReading
from tenants.admin import Recorded
from tenants.operating import ReadOnly


@admin.register(BaseModel)
class BaseModelAdmin(Recorded):
    list_display = ["name", "source", "revision", "created_at"]
    search_fields = ["name"]


@admin.register(EngineReading)
class EngineReadingAdmin(ReadOnly):
    list_display = ["replica", "at", "holds", "difference", "allowance", "counted", "booked", "own"]
    list_filter = ["holds", "replica"]
