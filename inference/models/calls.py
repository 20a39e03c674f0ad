"""What holds for calls, and what their callers thought of the answers."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class GuardrailPolicy(models.Model):
    """One version of a tenant's YAML policy; the newest valid version is in force."""

    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="policies")
    version = models.PositiveIntegerField()
    text = models.TextField()
    digest = models.CharField(max_length=64)
    created_by = models.ForeignKey("tenants.User", on_delete=models.PROTECT, related_name="+", null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "version"], name="one_policy_version")]
        ordering = ["-version"]
        verbose_name_plural = "guardrail policies"

    def __str__(self) -> str:
        return f"v{self.version}"


class Feedback(models.Model):
    """What a caller thinks of one answer. The last word of a key on a call is the one that counts."""

    class Thumbs(models.TextChoices):
        UP = "up", _("Up")
        DOWN = "down", _("Down")

    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="feedback")
    key = models.ForeignKey("tenants.APIKey", on_delete=models.PROTECT, related_name="+")
    request_id = models.CharField(max_length=40)  # of the usage row, which may be booked a second later
    score = models.PositiveSmallIntegerField(null=True)  # 1 to 5
    thumbs = models.CharField(max_length=4, choices=Thumbs, blank=True)
    comment = models.CharField(max_length=2000, blank=True)
    at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "request_id", "key"], name="one_feedback"),
            models.CheckConstraint(
                condition=models.Q(score__isnull=True) | models.Q(score__range=(1, 5)), name="score"
            ),
        ]
        ordering = ["-at"]
        verbose_name_plural = _("feedback")

    def __str__(self) -> str:
        return f"{self.request_id}: {self.score or self.thumbs}"
