"""A task carries an id and no tenant: whose work it does is what the row says."""

from __future__ import annotations

import inspect
import json
import uuid
from typing import Any

import pytest
from django.conf import settings

from paramstack_site.celery import app
from paramstack_site.tests import belongings
from training import datasets, jobs, rlaif
from training.models import Job, PreferencePair
from training.problems import Problem

pytestmark = pytest.mark.journey

HOUSES = ("attestation", "tenants", "inference", "training", "paramstack_site")


def tasks() -> dict[str, Any]:
    """The product's tasks by name."""
    app.loader.import_default_modules()
    return {name: task for name, task in app.tasks.items() if name.startswith(HOUSES)}


@pytest.fixture(autouse=True)
def _houses(cast, redis_url, engine, neighbour, monkeypatch):
    """Both tenants are furnished; no program with torch starts."""

    def refuse(*arguments: Any) -> None:
        raise Problem("no program here")

    monkeypatch.setattr("training.programs.run", refuse)


def parameters(task: Any) -> list[str]:
    return list(inspect.signature(task.run).parameters)


def test_a_task_takes_one_id_or_nothing():
    """A task that takes something else needs a test of its own beside these."""
    assert [names for names in map(parameters, tasks().values()) if names not in ([], ["job_id"], ["alert_id"])] == []


@pytest.mark.parametrize("name", [name for name, task in sorted(tasks().items()) if parameters(task) != ["job_id"]])
def test_no_task_touches_anything_of_another_tenant(cast, neighbour, name):
    before, task = belongings.rows(cast.acme), tasks()[name]
    task(*[neighbour["alert"]] * len(parameters(task)))
    assert belongings.rows(cast.acme) == before
    assert not belongings.strays(cast.globex)


@pytest.mark.parametrize("name", [name for name, task in sorted(tasks().items()) if parameters(task) == ["job_id"]])
@pytest.mark.parametrize("kind", Job.Kind.values)
def test_no_job_touches_anything_of_another_tenant(cast, name, kind):
    before = belongings.rows(cast.acme)
    tasks()[name](str(queued(cast.globex, kind).pk))
    assert belongings.rows(cast.acme) == before
    assert not belongings.strays(cast.globex)


def queued(tenant: Any, kind: str) -> Job:
    """A job of `kind` that waits for a worker, with the row it works on."""
    job = tenant.jobs.filter(kind=kind).first() or jobs.enqueue(tenant, kind, None)
    Job.objects.filter(pk=job.pk).update(state=Job.State.QUEUED, config={"name": "demo-base", "seed": 7})
    return job


def test_what_a_job_makes_belongs_to_the_tenant_of_its_row(cast):
    before = belongings.rows(cast.acme)
    with settings.SAMPLES.open(encoding="utf-8") as file:
        prompts = [json.loads(next(file))["prompt"] for _ in range(2)]
    dataset = datasets.create(cast.globex, "yazılı", prompts, cast.outsider)
    run = rlaif.start(cast.globex, dataset, {"generators": ["written"], "judges": ["written"]}, cast.outsider)
    tasks()["training.tasks.run_job"](str(run.job.pk))
    assert PreferencePair.objects.filter(run=run, tenant=cast.globex).count() > 1
    assert belongings.rows(cast.acme) == before


@pytest.mark.parametrize("name", ["training.tasks.run_job", "training.tasks.gpu_run_job"])
def test_an_id_that_nobody_has_is_no_work(cast, name):
    before = belongings.rows(cast.acme), belongings.rows(cast.globex)
    tasks()[name](str(uuid.uuid4()))
    assert (belongings.rows(cast.acme), belongings.rows(cast.globex)) == before
