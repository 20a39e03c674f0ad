"""Celery's messages: each says "look at the job", and carries nothing but its id."""

from __future__ import annotations

from celery import shared_task

from training import evaluation, jobs, rlaif, runs
from training.models import Job


def execute(claim: jobs.Claim) -> None:
    """Runs what the job's kind stands for."""
    job = claim.job
    match job.kind:
        case Job.Kind.BASE:
            runs.execute_base(claim)
        case Job.Kind.RLAIF:
            rlaif.execute(job.rlaif_run, claim)
        case Job.Kind.DPO:
            runs.execute(job.training_run, claim)
        case Job.Kind.EVALUATION:
            evaluation.execute(job.evaluation, claim)


@shared_task  # type: ignore[untyped-decorator]  # Celery ships no types
def run_job(job_id: str) -> None:
    jobs.run(job_id, execute)


@shared_task  # type: ignore[untyped-decorator]  # Celery ships no types
def gpu_run_job(job_id: str) -> None:
    jobs.run(job_id, execute)


@shared_task  # type: ignore[untyped-decorator]  # Celery ships no types
def reap_jobs() -> int:
    return jobs.reap()
