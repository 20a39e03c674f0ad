"""Operator pages of the loop: prompt sets, to read. They change in the console only, as new versions."""

from __future__ import annotations

from django.contrib import admin

from tenants.admin import ReadOnly
from training.models import PromptDataset


@admin.register(PromptDataset)
class PromptDatasetAdmin(ReadOnly):
    list_display = ["name", "version", "tenant", "created_by", "created_at"]
    list_filter = ["tenant"]
