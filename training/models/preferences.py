"""Runs, candidates, pairs, verdicts, reviews."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils.translation import gettext_lazy as _

from training.models.jobs import Job
from training.models.prompts import Prompt, PromptDataset


class RlaifRun(models.Model):
    """Prompts -> candidates -> verdicts -> preference pairs."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey("tenants.Tenant", on_delete=models.CASCADE, related_name="rlaif_runs")
    name = models.CharField(max_length=40)  # rlaif-0001
    dataset = models.ForeignKey(PromptDataset, on_delete=models.PROTECT, related_name="rlaif_runs")
    job = models.OneToOneField(Job, on_delete=models.PROTECT, related_name="rlaif_run")
    config = models.JSONField()  # generators, judges, num_responses
    round = models.PositiveIntegerField(default=0)  # how often failed prompts were tried again
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
