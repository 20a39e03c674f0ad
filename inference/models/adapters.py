"""Base models and adapters: what can answer."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils.translation import gettext_lazy as _


class BaseModel(models.Model):
    """A base model an operator entered: where it is, and the digest of its files."""

    name = models.CharField(max_length=120, unique=True)
    source = models.CharField(max_length=400)  # a local path or a Hugging Face id
    revision = models.CharField(max_length=64, blank=True)
    digest = models.CharField(max_length=64, blank=True)  # of the file manifest; empty for a hub id not fetched yet
    context_tokens = models.PositiveIntegerField(default=0)  # of prompt and answer together; 0: not known
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]
        verbose_name = _("base model")
        verbose_name_plural = _("base models")

    def __str__(self) -> str:
        return self.name


class Adapter(models.Model):
    """A LoRA adapter with its evidence: no row without a signed statement over its files."""

    class State(models.TextChoices):
        REGISTERED = "registered", _("Registered")
        LOADED = "loaded", _("Loaded")
        RETIRED = "retired", _("Retired")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.PROTECT, related_name="adapters")
    name = models.SlugField(max_length=60)
    version = models.PositiveIntegerField()
    base = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="adapters")
    digest = models.CharField(
        max_length=64
    )  # of the file manifest: the statement's subject, and its place in the store
    rank = models.PositiveSmallIntegerField(default=0)  # 0: not known
    statement = models.ForeignKey("attestation.Statement", on_delete=models.PROTECT, related_name="+")
    metrics = models.JSONField(default=dict)  # of the evaluation that came with it
    state = models.CharField(max_length=10, choices=State, default=State.REGISTERED)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "name", "version"], name="one_adapter_version")]
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name}-v{self.version}"

    @property
    def engine_name(self) -> str:
        """The name under which the engine knows it: of one tenant and of one content, whatever is renamed."""
        return f"{self.tenant.slug}.{self.name}-v{self.version}-{self.digest[:8]}"
