"""Model names of a tenant, and how an adapter takes one over."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils.translation import gettext_lazy as _

from inference.models.adapters import Adapter, BaseModel


class Alias(models.Model):
    """A stable model name of a tenant: routes to a champion and, by weight, to a challenger; a base model or an adapter
    takes over the calls that no engine answers for either.
    """

    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="aliases")
    name = models.SlugField(max_length=60)
    base = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="+")
    champion = models.ForeignKey(
        Adapter, on_delete=models.PROTECT, related_name="+", null=True, blank=True
    )  # null: the base model
    challenger = models.ForeignKey(Adapter, on_delete=models.PROTECT, related_name="+", null=True, blank=True)
    challenger_bp = models.PositiveIntegerField(default=0)  # weight in 1/10,000
    fallback_base = models.ForeignKey(BaseModel, on_delete=models.PROTECT, related_name="+", null=True, blank=True)
    fallback_adapter = models.ForeignKey(Adapter, on_delete=models.PROTECT, related_name="+", null=True, blank=True)
    salt = models.CharField(max_length=32, default="", blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "name"], name="one_alias"),
            models.CheckConstraint(condition=models.Q(challenger_bp__lte=10_000), name="weight_is_a_share"),
            models.CheckConstraint(
                condition=models.Q(fallback_base__isnull=True) | models.Q(fallback_adapter__isnull=True),
                name="one_fallback",
            ),
        ]
        ordering = ["name"]
        verbose_name_plural = "aliases"

    def __str__(self) -> str:
        return self.name

    @property
    def fallback(self) -> BaseModel | Adapter | None:
        return self.fallback_adapter or self.fallback_base


class Rollout(models.Model):
    """A canary of one adapter behind one alias. One active rollout per alias."""

    class State(models.TextChoices):
        RUNNING = "running", _("Running")
        DONE = "done", _("Promoted")
        ROLLED_BACK = "rolled_back", _("Rolled back")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    alias = models.ForeignKey(Alias, on_delete=models.CASCADE, related_name="rollouts")
    adapter = models.ForeignKey(Adapter, on_delete=models.PROTECT, related_name="rollouts")
    state = models.CharField(max_length=12, choices=State, default=State.RUNNING)
    weight_bp = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["alias"], condition=models.Q(state="running"), name="one_active_rollout")
        ]
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.alias}: {self.adapter} {self.weight_bp / 100:g} %"


class RolloutEvent(models.Model):
    """The history of a rollout. Append-only."""

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(auto_now_add=True)
    actor = models.ForeignKey("tenants.User", on_delete=models.PROTECT, related_name="+", null=True)
    state = models.CharField(max_length=12)
    weight_bp = models.PositiveIntegerField()
    note = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["at"]
