"""Who calls, what they may use, and what it cost. Money is integer nano-dollars (1e-9 USD), tokens are integers."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

NANO = 1_000_000_000  # nano-dollars in a dollar


class User(AbstractUser):
    """A person. `is_superuser` is the platform operator, who sees every tenant."""

    language = models.CharField(max_length=5, default="tr", choices=[("tr", "Türkçe"), ("en", "English")])
    theme = models.CharField(max_length=6, default="system", choices=[(t, t) for t in ("system", "light", "dark")])


class TenantQuerySet(models.QuerySet["Tenant"]):
    def visible_to(self, user: User) -> TenantQuerySet:
        return self if user.is_superuser else self.filter(members__user=user).distinct()


class Tenant(models.Model):
    class Status(models.TextChoices):
        ACTIVE = "active", _("Active")
        SUSPENDED = "suspended", _("Suspended")
        CLOSED = "closed", _("Closed")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.SlugField(unique=True)
    name = models.CharField(_("name"), max_length=120)
    status = models.CharField(_("status"), max_length=10, choices=Status, default=Status.ACTIVE)
    time_zone = models.CharField(_("time zone"), max_length=64, default="Europe/Istanbul")
    epoch = models.BigIntegerField(default=1, editable=False)  # raised by every change a gateway must see
    created_at = models.DateTimeField(auto_now_add=True)

    objects = TenantQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        verbose_name = _("tenant")
        verbose_name_plural = _("tenants")

    def __str__(self) -> str:
        return self.name


class Member(models.Model):
    class Role(models.TextChoices):
        OWNER = "owner", _("Owner")
        ENGINEER = "engineer", _("Engineer")
        DEVELOPER = "developer", _("Developer")
        REVIEWER = "reviewer", _("Reviewer")
        AUDITOR = "auditor", _("Auditor")

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="members")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(_("role"), max_length=10, choices=Role)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="one_membership")]
        verbose_name = _("member")
        verbose_name_plural = _("members")

    def __str__(self) -> str:
        return f"{self.user} ({self.role})"


class APIKeyQuerySet(models.QuerySet["APIKey"]):
    def live(self) -> APIKeyQuerySet:
        """Not revoked, not expired, of an active tenant."""
        unexpired = models.Q(expires_at=None) | models.Q(expires_at__gt=timezone.now())
        return self.filter(unexpired, revoked_at=None, tenant__status=Tenant.Status.ACTIVE)


def default_scopes() -> list[str]:
    return ["inference", "usage"]


class APIKey(models.Model):
    """`ps_live_<id>_<secret>_<crc>`: the id and a salted SHA-256 of the 160-bit secret are stored, never the secret.

    Scopes: `inference` calls models, `usage` reads usage and receipts, `manage` does what an engineer may.
    """

    id = models.CharField(primary_key=True, max_length=16)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(_("name"), max_length=80)
    salt = models.CharField(max_length=32, editable=False)
    digest = models.CharField(max_length=64, editable=False)
    scopes = models.JSONField(default=default_scopes)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = APIKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"


class Quota(models.Model):
    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, related_name="quota")
    requests_per_minute = models.PositiveIntegerField(_("requests per minute"), default=60)

    class Meta:
        verbose_name = _("quota")
        verbose_name_plural = _("quotas")

    def __str__(self) -> str:
        return f"{self.tenant}: {self.requests_per_minute}/min"


class Budget(models.Model):
    """At most $9,000,000 a month: Lua numbers in Redis are exact to 2^53."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, related_name="budget")
    monthly_nano = models.BigIntegerField(_("monthly limit (nano-dollars)"))

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(monthly_nano__gte=0, monthly_nano__lte=9_000_000 * NANO),
                name="budget_is_exact_in_lua",
            )
        ]
        verbose_name = _("budget")
        verbose_name_plural = _("budgets")

    def __str__(self) -> str:
        return f"{self.tenant}: ${self.monthly_nano / NANO:,.2f}"


class Price(models.Model):
    """One line of the price book: nano-dollars per million tokens, valid from an instant on."""

    model = models.CharField(_("model"), max_length=120)
    input_nano_per_mtok = models.BigIntegerField(_("input"))
    output_nano_per_mtok = models.BigIntegerField(_("output"))
    valid_from = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "valid_from"], name="one_price_at_a_time"),
            models.CheckConstraint(
                condition=models.Q(input_nano_per_mtok__gte=0, output_nano_per_mtok__gte=0), name="no_negative_price"
            ),
        ]
        ordering = ["model", "-valid_from"]
        verbose_name = _("price")
        verbose_name_plural = _("price book")

    def __str__(self) -> str:
        return self.model


class LedgerBatch(models.Model):
    """The rows that one transaction of the ledger writer committed, under one signed Merkle root."""

    root = models.CharField(max_length=64)
    size = models.PositiveIntegerField()
    statement = models.OneToOneField("attestation.Statement", on_delete=models.PROTECT, related_name="+")
    committed_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"#{self.pk}"


class UsageEventQuerySet(models.QuerySet["UsageEvent"]):
    def in_month(self, month: str) -> UsageEventQuerySet:
        """The calls of a UTC month, `YYYYMM`."""
        count = int(month[:4]) * 12 + int(month[4:]) - 1
        first, next_ = (datetime(n // 12, n % 12 + 1, 1, tzinfo=UTC) for n in (count, count + 1))
        return self.filter(occurred_at__gte=first, occurred_at__lt=next_)


class UsageEvent(models.Model):
    """One ledger row: exactly one for each admitted call. Append-only."""

    class Status(models.TextChoices):
        SETTLED = "settled", _("Settled")
        ABORTED = "aborted", _("Aborted")
        BLOCKED = "blocked", _("Blocked")
        ESTIMATED = "estimated", _("Estimated")

    request_id = models.CharField(max_length=40, unique=True)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="usage")
    key = models.ForeignKey(APIKey, on_delete=models.PROTECT, related_name="usage", null=True)
    occurred_at = models.DateTimeField(db_index=True)
    status = models.CharField(max_length=10, choices=Status)
    model = models.CharField(max_length=120)  # what the caller asked for: a base model, an adapter or an alias
    served = models.CharField(max_length=160)  # the engine's name of what answered
    adapter_digest = models.CharField(max_length=64, blank=True)
    arm = models.CharField(max_length=10, blank=True)  # champion, challenger or empty
    weight_bp = models.PositiveIntegerField(default=0)  # probability of the arm, in 1/10,000
    input_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    cost_nano = models.BigIntegerField(default=0)
    request_digest = models.CharField(max_length=64, blank=True)  # SHA-256 of the request body's bytes
    answer_digest = models.CharField(max_length=64, blank=True)  # SHA-256 of the answer's text
    policy_digest = models.CharField(max_length=64, blank=True)
    reason = models.CharField(max_length=80, blank=True)  # which rule blocked, or why it was aborted
    latency_ms = models.PositiveIntegerField(default=0)
    ttft_ms = models.PositiveIntegerField(default=0)
    batch = models.ForeignKey(LedgerBatch, on_delete=models.PROTECT, related_name="rows")
    position = models.PositiveIntegerField()  # leaf number in the batch

    objects = UsageEventQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["tenant", "occurred_at"])]
        ordering = ["-occurred_at"]

    def __str__(self) -> str:
        return self.request_id


class AuditEntry(models.Model):
    """Who changed what. Append-only."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="audit", null=True)
    actor = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", null=True)
    action = models.CharField(max_length=80)
    subject = models.CharField(max_length=160)
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        ordering = ["-at"]
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit entries")

    def __str__(self) -> str:
        return f"{self.action} {self.subject}"
