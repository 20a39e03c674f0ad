"""Evaluation of a run: base against adapter on held-out pairs, in a process of its own; then publishing.

The rule: an adapter is published only with its evaluation, and only when that process ended well.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _

from tenants.models import User
from training import jobs, programs, publishing
from training.models import Evaluation, Job, TrainingRun
from training.problems import Problem

RESULT = "evaluation.json"


class NoResult(Problem):
    def __init__(self, run: TrainingRun) -> None:
        super().__init__(_("The evaluation of %(run)s ended without a result; its log has the details.") % {"run": run})


class Diverged(Problem):
    """A number of the evaluation is NaN or infinite; `names` says which."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        words = {"names": ", ".join(names)}
        super().__init__(
            _("The training diverged: the evaluation has no finite %(names)s. Lower the learning rate and train again.")
            % words
        )


def start(run: TrainingRun, user: User | None) -> Evaluation:
    """Queues the evaluation of a trained run; call it inside a transaction."""
    job = jobs.enqueue(run.tenant, Job.Kind.EVALUATION, user)
    return Evaluation.objects.create(run=run, job=job)


def execute(evaluation: Evaluation, claim: jobs.Claim) -> None:
    """Evaluates and publishes. Raises what `programs.run` and `publishing.publish` raise."""
    run = evaluation.run
    programs.run("training.dpo.evaluate", [str(run.directory / "config.json")], claim)
    metrics = read(run, run.directory / RESULT)
    with claim.guard():
        evaluation.metrics = metrics
        evaluation.save(update_fields=["metrics"])
    claim.step(stage="publish")
    with claim.guard():
        publishing.publish(run)


def read(run: TrainingRun, path: Path) -> dict[str, Any]:
    """The evaluation program's result. Raises NoResult, Diverged."""
    try:
        result = dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError) as error:
        raise NoResult(run) from error
    return finite(result)


def finite(result: dict[str, Any]) -> dict[str, Any]:
    """`result` as it is. Raises Diverged when a number in it is NaN or infinite."""
    if names := [name for name, value in result.items() if isinstance(value, float) and not math.isfinite(value)]:
        raise Diverged(names)
    return result
