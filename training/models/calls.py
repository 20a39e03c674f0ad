"""What runs ask of providers: each request, reserved before it is sent and stored before it counts."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from training.models.preferences import RlaifRun
from training.models.prompts import Prompt


class ProviderBatch(models.Model):
    """One Message Batch. The row is there before the batch is, so that a batch whose id was lost is found again: its
    requests' ids begin with the row's."""

    class State(models.TextChoices):
        CREATING = "creating", _("Being created")
        RUNNING = "running", _("At the provider")
        ENDED = "ended", _("Ended")

    run = models.ForeignKey(RlaifRun, on_delete=models.CASCADE, related_name="batches")
    provider_id = models.CharField(max_length=80, blank=True)  # empty: not created, or its id was lost
    state = models.CharField(max_length=10, choices=State, default=State.CREATING)
    size = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return self.provider_id or f"#{self.pk}"


class ProviderCallQuerySet(models.QuerySet["ProviderCall"]):
    def in_the_air(self) -> ProviderCallQuerySet:
        """Sent, and nobody knows yet what came of it."""
        return self.filter(state=ProviderCall.State.SENT)

    def charged(self) -> ProviderCallQuerySet:
        """What the provider has billed, or may have."""
        return self.exclude(state=ProviderCall.State.RELEASED)


class ProviderCall(models.Model):
    """One request of a run. `key` says what was asked (`asking.Ask.key`): what is stored under it is never asked again.

    A call that was in the air when its worker died is `unknown` for ever: the provider may have billed it, so what was
    reserved for it stays charged, and the same is asked in another row.
    """

    class State(models.TextChoices):
        SENT = "sent", _("Under way")
        STORED = "stored", _("Answered")
        UNKNOWN = "unknown", _("Unknown")
        RELEASED = "released", _("Not billed")

    id = models.CharField(primary_key=True, max_length=40)  # also the ledger's request id
    run = models.ForeignKey(RlaifRun, on_delete=models.CASCADE, related_name="calls")
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="+")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="+", null=True)
    batch = models.ForeignKey(ProviderBatch, on_delete=models.SET_NULL, related_name="calls", null=True)
    key = models.CharField(max_length=64)
    round = models.PositiveIntegerField(default=0)  # of the run: failed ones of earlier rounds are asked again
    purpose = models.CharField(max_length=8)  # answer, verdict
    provider = models.CharField(max_length=40)
    model = models.CharField(max_length=120)  # that was asked for
    request_digest = models.CharField(max_length=64)  # SHA-256 of what was asked
    state = models.CharField(max_length=8, choices=State, default=State.SENT)
    reserved_nano = models.BigIntegerField()  # no bill of this call is higher
    cost_nano = models.BigIntegerField(default=0)
    text = models.TextField(blank=True)
    stop_reason = models.CharField(max_length=40, blank=True)
    answered_by = models.CharField(max_length=120, blank=True)  # the model as the provider names it
    usage = models.JSONField(default=dict)  # input, cache_write_5m, cache_write_1h, cache_read, output
    provider_request = models.CharField(max_length=80, blank=True)  # the provider's id of the request
    api_version = models.CharField(max_length=20, blank=True)
    reused_from = models.CharField(max_length=40, blank=True)  # another run's call that paid for it
    day = models.DateField()  # of the admission, in the tenant's time zone: what the ledger books it under
    counted = models.BooleanField(default=False)  # the ledger has its event
    why = models.CharField(max_length=300, blank=True)  # why it is unknown or was not billed
    sent_at = models.DateTimeField(auto_now_add=True)
    stored_at = models.DateTimeField(null=True, blank=True)

    objects = ProviderCallQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["run", "key", "round"], condition=models.Q(state="stored"), name="one_stored_call"
            )
        ]
        indexes = [
            models.Index(fields=["run", "state"], name="calls_of_a_run"),
            models.Index(fields=["tenant", "key"], name="calls_of_a_key"),
        ]

    def __str__(self) -> str:
        return self.id


class PromptOutcome(models.Model):
    """What a run made of one prompt; a prompt with a row is done, and is not looked at again."""

    class Kind(models.TextChoices):
        PAIRED = "paired", _("Pair made")
        UNANSWERED = "unanswered", _("Too few answers")
        REFUSED = "refused", _("Refused by the model")
        UNJUDGED = "unjudged", _("No readable verdict")

    run = models.ForeignKey(RlaifRun, on_delete=models.CASCADE, related_name="outcomes")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=10, choices=Kind)
    note = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "prompt"], name="one_outcome")]
