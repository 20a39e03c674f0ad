"""Frozen exports, the runs that train on them, their curves and evaluations."""

from __future__ import annotations

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models

from training.models.jobs import Job
from training.models.preferences import RlaifRun


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
