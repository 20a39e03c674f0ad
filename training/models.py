"""The loop's own records: prompts, candidates, verdicts, pairs, reviews, exports, jobs, training runs, evaluations."""

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


class RlaifRun(models.Model):
    """Prompts -> candidates -> verdicts -> preference pairs."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="rlaif_runs")
    name = models.CharField(max_length=40)  # rlaif-0001
    dataset = models.ForeignKey(PromptDataset, on_delete=models.PROTECT, related_name="rlaif_runs")
    job = models.OneToOneField(Job, on_delete=models.PROTECT, related_name="rlaif_run")
    config = models.JSONField()  # generators, judges, num_responses
    summary = models.JSONField(default=dict)  # what came out: candidates and verdicts by source, pairs, notes

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="one_rlaif_name")]

    def __str__(self) -> str:
        return self.name


class Source(models.TextChoices):
    """Where a candidate or a verdict came from. `written` shows as "hazır örnek / written sample" everywhere."""

    CLAUDE = "claude", _("Claude")
    OPENAI = "openai", _("OpenAI-compatible model")
    LOCAL = "local", _("Local model")
    RULES = "rules", _("Rule checks")
    WRITTEN = "written", _("Written sample")


class Candidate(models.Model):
    """One answer to one prompt, with who wrote it and what it cost."""

    run = models.ForeignKey(RlaifRun, on_delete=models.CASCADE, related_name="candidates")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="candidates")
    number = models.PositiveIntegerField()
    text = models.TextField()
    source = models.CharField(max_length=10, choices=Source)
    generator = models.CharField(max_length=120)  # the exact model id, or the sample file's name
    input_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    cost_nano = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "prompt", "number"], name="one_candidate_number")]
        ordering = ["prompt", "number"]


class Choice(models.TextChoices):
    A = "a", _("A is better")
    B = "b", _("B is better")
    TIE = "tie", _("About equal")
    BAD = "bad", _("Both are bad")


class PreferencePairQuerySet(models.QuerySet["PreferencePair"]):
    def waiting(self) -> PreferencePairQuerySet:
        return self.filter(decided_at=None)

    def usable(self) -> PreferencePairQuerySet:
        return self.filter(decision__in=[Choice.A, Choice.B])


class PreferencePair(models.Model):
    """Two candidates of one prompt; the judge proposes, a person decides."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="pairs")
    run = models.ForeignKey(RlaifRun, on_delete=models.CASCADE, related_name="pairs")
    prompt = models.ForeignKey(Prompt, on_delete=models.CASCADE, related_name="pairs")
    a = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="+")
    b = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="+")
    proposal = models.CharField(max_length=8, choices=Choice, blank=True)  # empty: every judge abstained
    score_a = models.FloatField(null=True)  # 0-10
    score_b = models.FloatField(null=True)
    decision = models.CharField(max_length=8, choices=Choice, blank=True)
    decided_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = PreferencePairQuerySet.as_manager()

    class Meta:
        ordering = ["created_at", "pk"]

    @property
    def chosen(self) -> Candidate:
        return self.a if self.decision == Choice.A else self.b

    @property
    def rejected(self) -> Candidate:
        return self.b if self.decision == Choice.A else self.a


class Verdict(models.Model):
    """What one judge said of one pair, in one order."""

    pair = models.ForeignKey(PreferencePair, on_delete=models.CASCADE, related_name="verdicts")
    source = models.CharField(max_length=10, choices=Source)
    judge = models.CharField(max_length=120)  # exact model id, rule set version or sample file
    choice = models.CharField(max_length=8, choices=Choice, blank=True)  # empty: abstained
    score_a = models.FloatField(null=True)
    score_b = models.FloatField(null=True)
    swapped = models.BooleanField(default=False)  # judged with B shown first
    rationale = models.TextField(blank=True)
    cost_nano = models.BigIntegerField(default=0)


class Review(models.Model):
    """One person's decision on one pair; the newest one counts, and an empty one takes it back. Append-only."""

    pair = models.ForeignKey(PreferencePair, on_delete=models.CASCADE, related_name="reviews")
    reviewer = models.ForeignKey("tenants.User", on_delete=models.PROTECT, related_name="reviews")
    choice = models.CharField(max_length=8, choices=Choice, blank=True)
    left = models.CharField(max_length=1, choices=[("a", "a"), ("b", "b")])  # which candidate stood on the left
    seconds = models.FloatField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["pk"]


class Export(models.Model):
    """A frozen, hashed, split preference dataset on disk: train.jsonl, heldout.jsonl, manifest.json."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="exports")
    run = models.ForeignKey(RlaifRun, on_delete=models.PROTECT, related_name="exports")
    digest = models.CharField(max_length=64)
    path = models.CharField(max_length=400)  # below ARTIFACTS
    train_pairs = models.PositiveIntegerField()
    heldout_pairs = models.PositiveIntegerField()
    seed = models.PositiveIntegerField()
    statement = models.ForeignKey("attestation.Statement", on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.run} {self.digest[:8]}"

    @property
    def directory(self) -> Path:
        return Path(settings.ARTIFACTS) / self.path


class TrainingRun(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="training_runs")
    name = models.CharField(max_length=40)  # dpo-0001
    export = models.ForeignKey(Export, on_delete=models.PROTECT, related_name="training_runs")
    base = models.ForeignKey("inference.BaseModel", on_delete=models.PROTECT, related_name="+")
    job = models.OneToOneField(Job, on_delete=models.PROTECT, related_name="training_run")
    config = models.JSONField()
    output = models.CharField(max_length=200, blank=True)  # below ARTIFACTS: what the attempt that succeeded wrote
    adapter = models.OneToOneField(
        "inference.Adapter", on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="one_run_name")]
        ordering = ["-job__created_at"]

    def __str__(self) -> str:
        return self.name

    @property
    def directory(self) -> Path:
        return Path(settings.ARTIFACTS) / self.output


class TrainingMetric(models.Model):
    """One logged point of a run: loss, reward margin, reward accuracy, learning rate; train or held-out."""

    run = models.ForeignKey(TrainingRun, on_delete=models.CASCADE, related_name="metrics")
    step = models.PositiveIntegerField()
    split = models.CharField(max_length=8, choices=[("train", "train"), ("heldout", "heldout")])
    values = models.JSONField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "step", "split"], name="one_point")]
        ordering = ["step"]


class Evaluation(models.Model):
    """Base against adapter on held-out pairs of prompts that were not trained on."""

    run = models.OneToOneField(TrainingRun, on_delete=models.CASCADE, related_name="evaluation")
    job = models.OneToOneField(Job, on_delete=models.PROTECT, related_name="evaluation")
    metrics = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)
