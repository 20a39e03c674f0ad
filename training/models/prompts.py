"""Prompt datasets: immutable numbered versions of named sets."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils.translation import gettext_lazy as _


class PromptDataset(models.Model):
    """One immutable version of a named set of prompts."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="datasets")
    name = models.CharField(_("name"), max_length=80)
    version = models.PositiveIntegerField()
    digest = models.CharField(max_length=64)  # SHA-256 over the row digests
    created_by = models.ForeignKey("tenants.User", on_delete=models.PROTECT, related_name="+", null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "name", "version"], name="one_dataset_version")]
        ordering = ["-created_at"]
        verbose_name = _("prompt dataset")
        verbose_name_plural = _("prompt datasets")

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


class Prompt(models.Model):
    dataset = models.ForeignKey(PromptDataset, on_delete=models.CASCADE, related_name="prompts")
    number = models.PositiveIntegerField()  # 1, 2, ... in the file's order
    text = models.TextField()
    digest = models.CharField(max_length=64, db_index=True)  # SHA-256 of the NFC text

    class Meta:
        constraints = [models.UniqueConstraint(fields=["dataset", "number"], name="one_prompt_number")]
        ordering = ["number"]

    def __str__(self) -> str:
        return self.text[:60]
