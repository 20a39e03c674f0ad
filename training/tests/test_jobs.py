"""What the job row promises: one worker at a time, stale writes refused, dead workers noticed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from training import jobs
from training.models import Job
from training.problems import Problem


@pytest.fixture
def sent(monkeypatch) -> list[tuple[str, list[str]]]:
    """What would have gone to the broker."""
    messages: list[tuple[str, list[str]]] = []
    monkeypatch.setattr("paramstack_site.celery.app.send_task", lambda name, args: messages.append((name, args)))
    return messages


@pytest.fixture
def job(cast) -> Job:
    return jobs.enqueue(cast.acme, Job.Kind.RLAIF, cast.engineer, total=5)


def expire(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def test_the_message_leaves_after_commit_and_carries_only_the_id(cast, sent, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        small = jobs.enqueue(cast.acme, Job.Kind.RLAIF, cast.engineer)
        assert sent == []
        large = jobs.enqueue(cast.acme, Job.Kind.DPO, cast.engineer)
    assert sent == [("training.tasks.run_job", [str(small.pk)]), ("training.tasks.gpu_run_job", [str(large.pk)])]


def test_a_broker_that_is_down_loses_no_job(cast, monkeypatch, django_capture_on_commit_callbacks):
    def refuse(name, args):
        raise ConnectionError("no broker")

    monkeypatch.setattr("paramstack_site.celery.app.send_task", refuse)
    with django_capture_on_commit_callbacks(execute=True):
        job = jobs.enqueue(cast.acme, Job.Kind.RLAIF, cast.engineer)
    job.refresh_from_db()
    assert job.state == Job.State.QUEUED


def test_a_job_is_claimed_once(job):
    first = jobs.claim(job.pk)
    assert first is not None
    assert first.attempt == 1
    assert jobs.claim(job.pk) is None


def test_progress_is_kept_and_renews_the_lease(job):
    claim = jobs.claim(job.pk)
    assert claim
    expire(job)
    claim.beat(done=2, total=5, stage="answers", cost_nano=17)
    job.refresh_from_db()
    assert (job.done, job.total, job.stage, job.cost_nano) == (2, 5, "answers", 17)
    assert job.lease_until
    assert job.lease_until > timezone.now() + timedelta(seconds=20)


def test_a_stale_claim_can_write_nothing(job):
    stale = jobs.claim(job.pk)
    assert stale
    expire(job)
    assert jobs.reap() == 1
    with pytest.raises(jobs.Lost):
        stale.beat(done=1)
    fresh = jobs.claim(job.pk)
    assert fresh
    assert fresh.attempt == 2
    for write in (stale.beat, stale.finish, stale.cancel, lambda: stale.fail("no")):
        with pytest.raises(jobs.Lost):
            write()
    with pytest.raises(jobs.Lost), stale.guard():
        pytest.fail("a stale claim must not get into its transaction")
    job.refresh_from_db()
    assert job.state == Job.State.RUNNING
    assert job.done == 0


def test_the_third_dead_worker_ends_the_job_with_a_sentence(job):
    for attempt in (1, 2, 3):
        claim = jobs.claim(job.pk)
        assert claim
        assert claim.attempt == attempt
        expire(job)
        jobs.reap()
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert "3" in job.error


def test_a_message_nobody_took_is_sent_again(job, sent, django_capture_on_commit_callbacks):
    expire(job)
    with django_capture_on_commit_callbacks(execute=True):
        assert jobs.reap() == 1
        assert jobs.reap() == 0
    assert sent == [("training.tasks.run_job", [str(job.pk)])]


def test_cancelling_a_queued_job_ends_it_at_once(job):
    jobs.cancel(job)
    assert job.state == Job.State.CANCELLED
    assert jobs.claim(job.pk) is None


def test_cancelling_a_running_job_stops_it_at_its_next_step(job):
    def execute(claim):
        jobs.cancel(job)
        claim.step(done=1)
        pytest.fail("the step must raise")

    jobs.run(job.pk, execute)
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED
    assert job.ended_at


def test_a_cancelled_job_whose_worker_died_is_cancelled_and_not_run_again(job):
    jobs.claim(job.pk)
    jobs.cancel(job)
    expire(job)
    jobs.reap()
    job.refresh_from_db()
    assert job.state == Job.State.CANCELLED


def test_a_problem_becomes_the_jobs_sentence(job):
    def execute(claim):
        raise Problem("Diskte yer yok.")

    jobs.run(job.pk, execute)
    job.refresh_from_db()
    assert (job.state, job.error) == (Job.State.FAILED, "Diskte yer yok.")


def test_a_defect_fails_the_job_and_keeps_its_traceback_in_the_log(job):
    def execute(claim):
        raise ZeroDivisionError("a defect")

    jobs.run(job.pk, execute)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED
    assert "ZeroDivisionError" not in job.error
    assert "ZeroDivisionError: a defect" in (job.directory / "log.txt").read_text()


def test_a_finished_job_stays_finished_when_its_message_comes_twice(job):
    ran = []
    jobs.run(job.pk, lambda claim: ran.append(claim.attempt))
    jobs.run(job.pk, lambda claim: ran.append(claim.attempt))
    job.refresh_from_db()
    assert ran == [1]
    assert job.state == Job.State.DONE


def test_retry_queues_a_failed_job_and_nothing_else(job):
    jobs.retry(job)
    assert job.state == Job.State.QUEUED
    claim = jobs.claim(job.pk)
    assert claim
    claim.fail("first")
    jobs.retry(job)
    assert (job.state, job.error) == (Job.State.QUEUED, "")
    again = jobs.claim(job.pk)
    assert again
    assert again.attempt == 2
