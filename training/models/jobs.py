"""Long work and who may run it."""

from __future__ import annotations

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class Job(models.Model):
    """The truth about one piece of long work. `attempt` fences: a worker that lost its lease cannot write."""

    class Kind(models.TextChoices):
        BASE = "base", _("Base model")
        RLAIF = "rlaif", _("Preferences")
        DPO = "dpo", _("DPO training")
        EVALUATION = "evaluation", _("Evaluation")

    class State(models.TextChoices):
        QUEUED = "queued", _("Queued")
        RUNNING = "running", _("Running")
        DONE = "done", _("Done")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="jobs")
    kind = models.CharField(max_length=12, choices=Kind)
    config = models.JSONField(default=dict)  # what a kind without a row of its own needs to know
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    attempt = models.PositiveIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)  # queued: until when its message is given time to arrive
    cancel_requested = models.BooleanField(default=False)
    stage = models.CharField(max_length=40, blank=True)
    done = models.PositiveIntegerField(default=0)
    total = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)  # one clear sentence for a person
    cost_nano = models.BigIntegerField(default=0)
    created_by = models.ForeignKey("tenants.User", on_delete=models.PROTECT, related_name="+", null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.kind} {self.state}"

    @property
    def directory(self) -> Path:
        return Path(settings.VAR) / "jobs" / str(self.pk)

    @property
    def active(self) -> bool:
        return self.state in {self.State.QUEUED, self.State.RUNNING}

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None while there is no pace to speak of."""
        if self.state != self.State.RUNNING or not self.started_at or not 0 < self.done < self.total:
            return None
        return (timezone.now() - self.started_at).total_seconds() / self.done * (self.total - self.done)

    @property
    def seconds_taken(self) -> float | None:
        return (self.ended_at - self.started_at).total_seconds() if self.started_at and self.ended_at else None
