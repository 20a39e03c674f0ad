"""Long work, owned by its row. The Celery message only says "look at the job"; this module decides who may run it.

The rule: a worker claims a job by compare-and-set and holds it by a lease. `attempt` fences: after the lease is lost,
every write of the old claim is refused with `Lost`. `reap` gives jobs whose worker died back to the queue.
What a job does is left to the module that started it; child processes are `processes`' business.
"""

from __future__ import annotations

import logging
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Coalesce
from django.utils import timezone, translation
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from tenants.models import Tenant, User
from training.models import Job
from training.problems import Problem, writing
from training.processes import supervise

__all__ = ["Cancelled", "Claim", "Lost", "cancel", "claim", "enqueue", "reap", "retry", "run", "supervise"]

logger = logging.getLogger(__name__)
LEASE = timedelta(seconds=30)
MESSAGE_TIME = timedelta(seconds=60)  # a queued job's message is sent again when nobody took it by then
ATTEMPTS = 3
GPU_KINDS = {Job.Kind.BASE, Job.Kind.DPO, Job.Kind.EVALUATION}  # what imports torch in its child


class Lost(Exception):
    """This claim no longer holds its job: another worker has it, or it ended. Whoever catches this writes nothing."""


class Cancelled(Exception):
    """Somebody asked for the job to stop."""


@dataclass
class Claim:
    """The right to run one attempt of a job. Every method raises `Lost` once the right is gone."""

    job: Job
    attempt: int
    cancelled: bool = False
    ended: bool = False

    def beat(self, **values: Any) -> None:
        """Renews the lease and records progress (`done`, `total`, `stage`, `cost_nano`); learns of a cancel request."""
        self._write(lease_until=timezone.now() + LEASE, **values)
        self.cancelled = Job.objects.values_list("cancel_requested", flat=True).get(pk=self.job.pk)

    def step(self, **values: Any) -> None:
        """`beat`, then raises `Cancelled` if somebody asked for it."""
        self.beat(**values)
        if self.cancelled:
            raise Cancelled

    @contextmanager
    def guard(self) -> Iterator[None]:
        """A transaction that commits only while this claim holds the job: results of a stale worker are refused."""
        with transaction.atomic():
            self._write(lease_until=timezone.now() + LEASE)
            yield

    def finish(self) -> None:
        self._end(Job.State.DONE)

    def fail(self, sentence: str) -> None:
        self._end(Job.State.FAILED, error=sentence)

    def cancel(self) -> None:
        self._end(Job.State.CANCELLED)

    def log(self, text: str) -> None:
        """Appends to the job's log.txt."""
        self.job.directory.mkdir(parents=True, exist_ok=True)
        with writing(self.job.directory), (self.job.directory / "log.txt").open("a", encoding="utf-8") as file:
            file.write(text.rstrip("\n") + "\n")

    def _end(self, state: str, **values: Any) -> None:
        if not self.ended:
            self._write(state=state, ended_at=timezone.now(), lease_until=None, **values)
            self.ended = True

    def _write(self, **values: Any) -> None:
        held = Job.objects.filter(pk=self.job.pk, state=Job.State.RUNNING, attempt=self.attempt)
        if not held.update(**values):
            raise Lost(f"attempt {self.attempt} of job {self.job.pk} no longer holds it")
        for name, value in values.items():
            setattr(self.job, name, value)


def enqueue(tenant: Tenant, kind: str, user: User | None, total: int = 0, config: dict[str, Any] | None = None) -> Job:
    """A queued job; its message leaves when the surrounding transaction commits."""
    lease = timezone.now() + MESSAGE_TIME
    job = Job.objects.create(
        tenant=tenant, kind=kind, created_by=user, total=total, config=config or {}, lease_until=lease
    )
    _send(job)
    return job


def claim(job_id: uuid.UUID | str) -> Claim | None:
    """The right to run a queued job, or None when it is not queued any more or another worker was quicker."""
    job = Job.objects.filter(pk=job_id, state=Job.State.QUEUED).first()
    if job is None:
        return None
    now = timezone.now()
    won = Job.objects.filter(pk=job.pk, state=Job.State.QUEUED, attempt=job.attempt).update(
        state=Job.State.RUNNING,
        attempt=job.attempt + 1,
        lease_until=now + LEASE,
        started_at=Coalesce("started_at", now),
        ended_at=None,
        error="",
        stage="",
        done=0,
    )
    if not won:
        return None
    job.refresh_from_db()
    return Claim(job, job.attempt)


def run(job_id: uuid.UUID | str, execute: Callable[[Claim], None]) -> None:
    """Claims the job, executes it, and records how it ended. Does nothing when the job is not there to be claimed."""
    held = claim(job_id)
    if held is None:
        return
    language = held.job.created_by.language if held.job.created_by else None
    with translation.override(language):
        try:
            _execute(held, execute)
        except Lost as lost:
            logger.warning("%s", lost)


def _execute(held: Claim, execute: Callable[[Claim], None]) -> None:
    try:
        execute(held)
        held.finish()
    except Lost:
        raise
    except Cancelled:
        held.cancel()
    except Problem as problem:
        held.fail(str(problem))
    except Exception:
        logger.exception("job %s failed", held.job.pk)
        held.fail(_("An unexpected error ended this job; its log has the details."))
        held.log(traceback.format_exc())


def cancel(job: Job) -> None:
    """Ends a queued job at once and asks a running one to stop; a job that has ended stays as it is."""
    queued = Job.objects.filter(pk=job.pk, state=Job.State.QUEUED)
    if not queued.update(state=Job.State.CANCELLED, ended_at=timezone.now(), lease_until=None):
        Job.objects.filter(pk=job.pk, state=Job.State.RUNNING).update(cancel_requested=True)
    job.refresh_from_db()


def retry(job: Job) -> None:
    """Queues a failed or cancelled job again; what it stored before is kept, so paid work is not paid twice."""
    ended = Job.objects.filter(pk=job.pk, state__in=[Job.State.FAILED, Job.State.CANCELLED])
    lease = timezone.now() + MESSAGE_TIME
    if ended.update(state=Job.State.QUEUED, cancel_requested=False, lease_until=lease, error="", ended_at=None):
        _send(job)
    job.refresh_from_db()


def reap() -> int:
    """Gives back or ends jobs whose lease ran out, and sends lost messages again. Returns how many it touched."""
    expired = Job.objects.filter(lease_until__lt=timezone.now(), state__in=[Job.State.QUEUED, Job.State.RUNNING])
    return sum(_reap(job) for job in expired)


def _reap(job: Job) -> bool:
    now = timezone.now()
    same = Job.objects.filter(pk=job.pk, state=job.state, attempt=job.attempt).filter(Q(lease_until__lt=now))
    if job.state == Job.State.RUNNING and job.cancel_requested:
        return bool(same.update(state=Job.State.CANCELLED, ended_at=now, lease_until=None))
    if job.state == Job.State.RUNNING and job.attempt % ATTEMPTS == 0:
        error = _("The worker that ran this job died %(count)d times; see its log.") % {"count": ATTEMPTS}
        return bool(same.update(state=Job.State.FAILED, ended_at=now, lease_until=None, error=error))
    touched = bool(same.update(state=Job.State.QUEUED, lease_until=now + MESSAGE_TIME))
    if touched:
        _send(job)
    return touched


def _send(job: Job) -> None:
    # robust: with the broker down the row still stands, and reap() sends again when its lease has run out
    transaction.on_commit(lambda: _publish(job.pk, job.kind), robust=True)


def _publish(job_id: uuid.UUID, kind: str) -> None:
    name = "gpu_run_job" if kind in GPU_KINDS else "run_job"
    import_string(settings.CELERY_APPLICATION).send_task(f"training.tasks.{name}", args=[str(job_id)])
