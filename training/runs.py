"""DPO runs: configured here, trained in a process of their own, watched line by line, handed on to evaluation.

The rule: this module never imports torch; it writes a config, supervises `training.dpo.program`, and records what the
process says. What is trained on is verified first: the export's signature and the base model's digest.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from attestation import canonical, keyring, statements, verdicts, verify
from attestation.signing import VerificationError
from inference import registry
from inference.models import BaseModel
from tenants.models import Tenant, User
from training import evaluation, jobs, programs
from training.dpo import config as dpo
from training.models import Export, Job, TrainingMetric, TrainingRun
from training.naming import next_name
from training.problems import Problem, writing
from training.programs import log_tail

__all__ = ["BadConfig", "build_base", "execute", "execute_base", "inspect", "log_tail", "start"]

BASE = "demo-base"
SEED = 7
OURS = {"base_model", "base_name", "base_digest", "train", "heldout", "output_dir"}  # what a caller may not set


class BadConfig(Problem):
    """The training configuration is not possible; the sentence is the training program's own."""


@transaction.atomic
def start(export: Export, base: BaseModel, config: dict[str, Any], user: User | None) -> TrainingRun:
    """Queues a DPO run of `base` on `export`; `config` changes training.dpo.config's defaults. Raises BadConfig."""
    if forbidden := sorted(OURS & set(config)):
        raise BadConfig(_("These settings are not yours to choose: %(names)s.") % {"names": ", ".join(forbidden)})
    name = next_name(export.tenant, TrainingRun, "dpo")
    try:
        dpo.build({"base_model": base.source, "train": "train", "output_dir": "output", **config})
    except dpo.Refusal as refusal:
        raise BadConfig(str(refusal)) from refusal
    job = jobs.enqueue(export.tenant, Job.Kind.DPO, user)
    return TrainingRun.objects.create(tenant=export.tenant, name=name, export=export, base=base, job=job, config=config)


def execute(run: TrainingRun, claim: jobs.Claim) -> None:
    """Trains and queues the evaluation. Raises ProgramFailed, jobs.Cancelled, jobs.Lost and what `inspect` raises."""
    claim.step(stage="verify")
    inspect(run)
    output = output_of(run, claim.attempt)
    config = write_config(run, output)
    with claim.guard():
        run.metrics.all().delete()
    curve = Curve(run, claim, output / "metrics.jsonl")
    programs.run("training.dpo.program", [str(config)], claim, curve.on_line)
    curve.read()
    with claim.guard():
        run.output = str(output.relative_to(settings.ARTIFACTS))
        run.save(update_fields=["output"])
        evaluation.start(run, claim.job.created_by)
        claim.finish()


def inspect(run: TrainingRun) -> None:
    """Proves that export and base are what they were when they were signed and entered. Raises Problem."""
    export, base = run.export, run.base
    try:
        verify.directory(export.directory, export.statement.envelope, keyring.public_keys(), statements.EXPORT)
    except VerificationError as error:
        raise Problem(verdicts.refusal(error)) from error
    local = Path(base.source).is_dir()
    if base.digest and local and canonical.digest(canonical.manifest(base.source)) != base.digest:
        raise Problem(_("The files of the base model %(name)s are not those that were entered.") % {"name": base.name})


def output_of(run: TrainingRun, attempt: int) -> Path:
    """Where an attempt of the run writes: its own directory, so that a torn one is never mistaken for a whole one."""
    return Path(settings.ARTIFACTS) / "runs" / str(run.pk) / str(attempt)


def write_config(run: TrainingRun, output: Path) -> Path:
    """The JSON file that training.dpo.program and training.dpo.evaluate read."""
    values = {
        **run.config,
        "base_model": run.base.source,
        "base_name": run.base.name,
        "base_digest": run.base.digest,
        "train": str(run.export.directory / "train.jsonl"),
        "heldout": str(run.export.directory / "heldout.jsonl"),
        "output_dir": str(output),
    }
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        path = output / "config.json"
        path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


class Curve:
    """Follows a run's metrics.jsonl into rows while the process writes it."""

    def __init__(self, run: TrainingRun, claim: jobs.Claim, path: Path) -> None:
        self.run, self.claim, self.path = run, claim, path
        self.offset = 0

    def on_line(self, line: str) -> None:
        self.read()

    def read(self) -> None:
        """Stores every whole line that was added since the last time."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                added = file.read()
        except FileNotFoundError:
            return
        whole = added[: added.rfind(b"\n") + 1]
        self.offset += len(whole)
        if points := [self._point(json.loads(line)) for line in whole.splitlines() if line.strip()]:
            with self.claim.guard():
                TrainingMetric.objects.bulk_create(
                    points,
                    update_conflicts=True,
                    unique_fields=["run", "step", "split"],
                    update_fields=["values"],
                )

    def _point(self, said: dict[str, Any]) -> TrainingMetric:
        values = {name: value for name, value in said.items() if name not in {"step", "split"} and _storable(value)}
        return TrainingMetric(run=self.run, step=said["step"], split=said["split"], values=values)


def _storable(value: Any) -> bool:
    """Not NaN or infinite, which a diverged run logs and JSON in the database does not know."""
    return not isinstance(value, float) or math.isfinite(value)


def build_base(tenant: Tenant, user: User | None, name: str = BASE, seed: int = SEED) -> Job:
    """Queues the pre-training of a small base model on the Turkish text in data/corpus, unless it is there already."""
    return jobs.enqueue(tenant, Job.Kind.BASE, user, config={"name": name, "seed": seed})


def execute_base(claim: jobs.Claim) -> None:
    """Pre-trains and enters the base model; ends at once when it is there with the digest it was entered with."""
    name, seed = claim.job.config["name"], claim.job.config["seed"]
    output = Path(settings.VAR) / "models" / name
    entered = BaseModel.objects.filter(name=name).first()
    if entered and output.is_dir() and canonical.digest(canonical.manifest(output)) == entered.digest:
        return
    corpus = str(settings.ROOT / "data" / "corpus")
    programs.run("training.dpo.pretrain", ["--corpus", corpus, "--output", str(output), "--seed", str(seed)], claim)
    digest = canonical.digest(canonical.manifest(output))
    with claim.guard():
        registry.enter_base(name, str(output), digest)
