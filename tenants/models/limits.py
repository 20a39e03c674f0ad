"""What a tenant may use: keys, quotas, budgets, prices. Money is integer nano-dollars (1e-9 USD)."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from tenants.models.people import Tenant, User

NANO = 1_000_000_000  # nano-dollars in a dollar


class APIKeyQuerySet(models.QuerySet["APIKey"]):
    def lasting(self) -> APIKeyQuerySet:
        """All but playground keys that are over: there is one for each hour that somebody tried something."""
        now = timezone.now()
        over = models.Q(revoked_at__lte=now) | models.Q(expires_at__lte=now)
        return self.exclude(over, playground=True)

    def live(self) -> APIKeyQuerySet:
        """Not expired, not revoked or still in the grace of a rotation, of an active tenant."""
        now = timezone.now()
        unexpired = models.Q(expires_at=None) | models.Q(expires_at__gt=now)
        unrevoked = models.Q(revoked_at=None) | models.Q(revoked_at__gt=now)
        return self.filter(unexpired, unrevoked, tenant__status=Tenant.Status.ACTIVE)


def default_scopes() -> list[str]:
    return ["inference", "usage"]


class APIKey(models.Model):
    """`ps_live_<id>_<secret>_<crc>`: the id and a salted SHA-256 of the 160-bit secret are stored, never the secret.

    Scopes: `inference` calls models, `usage` reads usage and receipts, `manage` does what an engineer may.
    `allowed_models` empty allows every model of the tenant. `revoked_at` in the future is the end of a rotation's
    grace; `rotated_from` is the key that this one replaces. A `playground` key was made for its creator's own calls
    from the console (`playground`).
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
    rotated_from = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, related_name="successor", editable=False
    )
    allowed_models = models.JSONField(default=list, blank=True)
    default_max_tokens = models.PositiveIntegerField(_("tokens of an answer when the call names none"), default=1024)
    last_used_at = models.DateTimeField(null=True, editable=False)  # to the minute or so, by the ledger writer
    playground = models.BooleanField(default=False, editable=False)

    objects = APIKeyQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"


class Quota(models.Model):
    """Limits of a tenant (`key` empty) or of one of its keys. Empty: no limit of that kind. 0: nothing passes.

    Tokens are input and output together. Upper bounds keep the counting exact (`metering`).
    """

    MOST_PER_SECOND, MOST_PER_MINUTE, MOST_OPEN = 10_000_000, 100_000_000, 100_000
    FIELDS = (
        "requests_per_second",
        "requests_per_minute",
        "tokens_per_second",
        "tokens_per_minute",
        "concurrent_calls",
    )

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="quotas")
    key = models.OneToOneField(APIKey, on_delete=models.CASCADE, related_name="quota", null=True, blank=True)
    requests_per_second = models.PositiveIntegerField(_("requests per second"), null=True, blank=True)
    requests_per_minute = models.PositiveIntegerField(_("requests per minute"), null=True, blank=True)
    tokens_per_second = models.PositiveIntegerField(_("tokens per second"), null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(_("tokens per minute"), null=True, blank=True)
    concurrent_calls = models.PositiveIntegerField(_("concurrent calls"), null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant"], condition=models.Q(key=None), name="one_quota_of_a_tenant"),
            models.CheckConstraint(
                condition=models.Q(requests_per_second=None) | models.Q(requests_per_second__lte=10_000_000),
                name="requests_per_second_countable",
            ),
            models.CheckConstraint(
                condition=models.Q(requests_per_minute=None) | models.Q(requests_per_minute__lte=100_000_000),
                name="requests_per_minute_countable",
            ),
            models.CheckConstraint(
                condition=models.Q(tokens_per_second=None) | models.Q(tokens_per_second__lte=10_000_000),
                name="tokens_per_second_countable",
            ),
            models.CheckConstraint(
                condition=models.Q(tokens_per_minute=None) | models.Q(tokens_per_minute__lte=100_000_000),
                name="tokens_per_minute_countable",
            ),
            models.CheckConstraint(
                condition=models.Q(concurrent_calls=None) | models.Q(concurrent_calls__lte=100_000),
                name="concurrent_calls_countable",
            ),
        ]
        verbose_name = _("quota")
        verbose_name_plural = _("quotas")

    def __str__(self) -> str:
        return f"{self.tenant}{f' {self.key_id}' if self.key_id else ''}"


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
    """A version of one line of the price book: nano-dollars per million tokens, in force in [valid_from, valid_until).

    `model` is a base model, `adapter` (every adapter) or `slug/name-vN` (one of them). Immutable once a call used it.
    A price derived from a GPU's cost keeps its inputs in `basis`.
    """

    class Kind(models.TextChoices):
        LIST = "list", _("list price")
        SELF_HOSTED = "self_hosted", _("from GPU hours")
        REFERENCE = "reference", _("for comparison only")  # an API's price; no call is billed by it

    model = models.CharField(_("model"), max_length=120)
    kind = models.CharField(max_length=12, choices=Kind, default=Kind.LIST)
    input_nano_per_mtok = models.BigIntegerField(_("input"))
    output_nano_per_mtok = models.BigIntegerField(_("output"))
    cached_nano_per_mtok = models.BigIntegerField(_("cached input"), null=True, blank=True)  # empty: as input
    batch_input_nano_per_mtok = models.BigIntegerField(_("input, batch"), null=True, blank=True)
    batch_output_nano_per_mtok = models.BigIntegerField(_("output, batch"), null=True, blank=True)
    valid_from = models.DateTimeField()
    valid_until = models.DateTimeField(null=True, blank=True)
    historical = models.BooleanField(default=False)  # no longer offered; kept for comparisons
    basis = models.JSONField(default=dict, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "valid_from"], name="one_price_at_a_time"),
            models.CheckConstraint(
                condition=models.Q(input_nano_per_mtok__gte=0, output_nano_per_mtok__gte=0), name="no_negative_price"
            ),
            models.CheckConstraint(
                condition=models.Q(valid_until=None) | models.Q(valid_until__gt=models.F("valid_from")),
                name="price_ends_after_it_begins",
            ),
        ]
        ordering = ["model", "-valid_from"]
        verbose_name = _("price")
        verbose_name_plural = _("price book")

    def __str__(self) -> str:
        return self.model


class Webhook(models.Model):
    """Where a tenant's alerts go, signed. The secret is encrypted at rest by the master key and shown once."""

    tenant = models.OneToOneField(Tenant, on_delete=models.CASCADE, related_name="webhook")
    url = models.URLField(max_length=400)
    secret = models.BinaryField(editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.url


class BudgetAlert(models.Model):
    """A month's spend passed a share of the budget. One row a tenant, month, budget and share; then it is delivered."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="budget_alerts")
    month = models.CharField(max_length=6)
    percent = models.PositiveSmallIntegerField()  # 50, 80 or 100
    spent_nano = models.BigIntegerField()
    budget_nano = models.BigIntegerField()
    raised_at = models.DateTimeField(auto_now_add=True)
    mailed_at = models.DateTimeField(null=True)
    posted_at = models.DateTimeField(null=True)
    due_at = models.DateTimeField(null=True, default=timezone.now, db_index=True)  # the next attempt; empty: no more
    attempts = models.PositiveSmallIntegerField(default=0)
    problem = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "month", "budget_nano", "percent"], name="one_budget_alert")
        ]
        ordering = ["-raised_at"]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.month} {self.percent} %"


class IdempotentReply(models.Model):
    """What a POST with an Idempotency-Key answered, so that sending it again does nothing twice. Kept for a day."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+", null=True)  # empty: the platform's
    caller = models.CharField(max_length=40)  # `key:<id>` or `user:<id>`
    key = models.CharField(max_length=80)
    digest = models.CharField(max_length=64)  # SHA-256 of method, path and body
    status = models.PositiveSmallIntegerField(null=True)  # empty: the first request is still at work
    body = models.BinaryField(default=b"")  # encrypted at rest: it may carry a secret that is shown once
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "caller", "key"], name="one_idempotent_reply"),
            models.UniqueConstraint(
                fields=["caller", "key"], condition=models.Q(tenant=None), name="one_idempotent_reply_of_the_platform"
            ),
        ]

    def __str__(self) -> str:
        return self.key
