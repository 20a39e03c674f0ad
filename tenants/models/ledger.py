"""What was used and what it cost: rows, their sums, their proofs. Tokens and nano-dollars are integers."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from tenants.models.limits import APIKey, Price
from tenants.models.people import Tenant


class LedgerHead(models.Model):
    """Where the ledger stands: one row, moved by compare-and-set in the transaction of each batch, fencing writers off.

    `mark` is what a Redis of this installation carries; `position` the last entry of the usage stream that is booked;
    `sequence` the highest number of Redis steps seen: a Redis that counts less has lost something.
    """

    mark = models.CharField(max_length=48)
    position = models.CharField(max_length=40, default="0-0")
    sequence = models.BigIntegerField(default=0)
    # Booked, not yet in the counters: [entry, tenant, month, nano-dollars, why it is put aside for a person or ""].
    unconfirmed = models.JSONField(default=list)
    writer = models.CharField(max_length=120, blank=True)
    lease_until = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.mark} {self.position}"


class LedgerBatch(models.Model):
    """The rows that one transaction of the ledger writer committed, under one signed Merkle root."""

    root = models.CharField(max_length=64)
    size = models.PositiveIntegerField()
    statement = models.OneToOneField("attestation.Statement", on_delete=models.PROTECT, related_name="+")
    committed_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"#{self.pk}"


class UsageEvent(models.Model):
    """One ledger row. Exactly one usage row for each admitted call, and the corrections that name it. Append-only.

    Its writer checks the names it writes, so the database does not check them again row by row (`db_constraint`).
    """

    class Status(models.TextChoices):
        SETTLED = "settled", _("Settled")
        ABORTED = "aborted", _("Aborted")
        BLOCKED = "blocked", _("Blocked")
        ESTIMATED = "estimated", _("Estimated")
        ADJUSTMENT = "adjustment", _("Adjustment")

    class Source(models.TextChoices):
        GATEWAY = "gateway", _("Gateway")
        ADJUSTMENT = "adjustment", _("Adjustment")

    source = models.CharField(max_length=10, choices=Source, default=Source.GATEWAY)
    request_id = models.CharField(max_length=40)  # the event's id; a correction has that of the row it corrects
    tenant = models.ForeignKey(
        Tenant, on_delete=models.PROTECT, related_name="usage", db_constraint=False, db_index=False
    )
    key = models.ForeignKey(
        APIKey, on_delete=models.PROTECT, related_name="usage", null=True, db_constraint=False, db_index=False
    )
    corrects = models.ForeignKey(
        "self", on_delete=models.PROTECT, related_name="corrections", null=True, db_constraint=False, db_index=False
    )
    occurred_at = models.DateTimeField()  # of the admission, by Redis's clock
    day = models.DateField()  # of the admission, in the tenant's time zone; its month is the budget's
    status = models.CharField(max_length=10, choices=Status)
    model = models.CharField(max_length=120)  # what the caller asked for: a base model, an adapter or an alias
    served = models.CharField(max_length=160)  # the engine's name of what answered
    adapter_digest = models.CharField(max_length=64, blank=True)
    arm = models.CharField(max_length=10, blank=True)  # champion, challenger, fallback or empty
    weight_bp = models.PositiveIntegerField(default=0)  # probability of the arm that was drawn, in 1/10,000
    price = models.ForeignKey(
        Price, on_delete=models.PROTECT, related_name="+", null=True, db_constraint=False, db_index=False
    )
    end_user = models.CharField(max_length=64, blank=True)
    input_tokens = models.IntegerField(default=0)  # all of them, cached ones too; a correction's may be negative
    cached_tokens = models.IntegerField(default=0)
    output_tokens = models.IntegerField(default=0)
    cost_nano = models.BigIntegerField(default=0)
    request_digest = models.CharField(max_length=64, blank=True)  # SHA-256 of the request body's bytes
    answer_digest = models.CharField(max_length=64, blank=True)  # SHA-256 of the answer's text
    policy_digest = models.CharField(max_length=64, blank=True)
    reason = models.CharField(max_length=80, blank=True)  # which rule blocked, or why it was aborted
    latency_ms = models.PositiveIntegerField(default=0)
    ttft_ms = models.PositiveIntegerField(default=0)
    base_digest = models.CharField(max_length=64, blank=True)
    engine = models.CharField(max_length=60, blank=True)  # the replica that answered; empty where none was asked
    engine_version = models.CharField(max_length=60, blank=True)
    load_epoch = models.PositiveIntegerField(default=0)  # which of its loads of the adapter; 0 for a base model
    batch = models.ForeignKey(LedgerBatch, on_delete=models.PROTECT, related_name="rows", db_constraint=False)
    position = models.PositiveIntegerField()  # leaf number in the batch

    class Meta:
        constraints = [models.UniqueConstraint(fields=["request_id", "source", "tenant"], name="one_row_an_event")]
        indexes = [
            models.Index(fields=["tenant", "-occurred_at", "-id"], name="newest_of_a_tenant"),
            models.Index(
                fields=["tenant", "-occurred_at"],
                condition=models.Q(source="adjustment"),  # a statement finds the few corrections among all rows
                name="corrections_of_a_tenant",
            ),
        ]
        ordering = ["-occurred_at", "-id"]

    def __str__(self) -> str:
        return self.request_id


class UsageTotal(models.Model):
    """Sums over ledger rows, kept in the transaction of each batch. `calls` counts usage rows, not corrections."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="+")
    calls = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_nano = models.BigIntegerField(default=0)

    class Meta:
        abstract = True


class UsageDay(UsageTotal):
    """By day, key, model and what answered: what the cost pages add up. `blocked` and `aborted` are among `calls`."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="usage_days")
    day = models.DateField()
    key_id = models.CharField(max_length=16, blank=True)
    model = models.CharField(max_length=120)
    served = models.CharField(max_length=160)
    adapter_digest = models.CharField(max_length=64, blank=True)
    price_id = models.BigIntegerField(default=0)
    blocked = models.BigIntegerField(default=0)
    aborted = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "day", "key_id", "model", "served", "adapter_digest", "price_id"],
                name="one_usage_day",
            )
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.day}"


class UsageMonth(UsageTotal):
    """By tenant and month (`YYYYMM` in the tenant's time zone): what the budget's counter must equal.

    `corrected_nano` is the part of `cost_nano` that corrections moved.
    """

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="usage_months")
    month = models.CharField(max_length=6)
    corrected_nano = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "month"], name="one_usage_month")]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.month}"


class UsageEndUser(UsageTotal):
    """By month and the end user that calls named; calls without one are not here."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="usage_end_users")
    month = models.CharField(max_length=6)
    end_user = models.CharField(max_length=64)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "month", "end_user"], name="one_usage_end_user"),
        ]
        indexes = [models.Index(fields=["tenant", "month", "-cost_nano"], name="dearest_end_users")]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.month} {self.end_user}"


class RefusalCount(models.Model):
    """How many calls one limit refused in one minute. Nothing else of a refused call is kept."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="refusals")
    key_id = models.CharField(max_length=16)
    minute = models.DateTimeField()
    limit = models.CharField(max_length=40)  # a name of `metering.LIMITS`, or budget
    count = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "minute", "key_id", "limit"], name="one_refusal_count"),
        ]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.minute} {self.limit}: {self.count}"


class LedgerProof(models.Model):
    """One run of the proof: what Redis counted at one instant against what the ledger's sums say of the same instant.

    `findings` names each tenant and month that differs, with both numbers; empty when the proof holds.
    """

    nonce = models.CharField(max_length=32, unique=True)
    at = models.DateTimeField()  # of the counters, by Redis's clock
    position = models.CharField(max_length=40)
    tenants = models.PositiveIntegerField()
    open_calls = models.PositiveIntegerField()
    held_nano = models.BigIntegerField()
    spent_nano = models.BigIntegerField()
    holds = models.BooleanField()
    findings = models.JSONField(default=list)

    class Meta:
        ordering = ["-at"]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {'holds' if self.holds else 'differs'}"
