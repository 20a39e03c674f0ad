"""What a run promises: only what was signed is trained, the adapter has evidence, failures are sentences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from attestation import canonical
from inference import registry
from inference.artifacts import store
from inference.models import BaseModel
from training import evaluation, export, jobs, programs, publishing, review, runs, tasks
from training.models import Export, Job, TrainingMetric, TrainingRun
from training.problems import Problem


@pytest.fixture
def artifacts(settings, tmp_path):
    settings.ARTIFACTS = tmp_path / "artifacts"
    return settings.ARTIFACTS


@pytest.fixture
def frozen(run, cast, artifacts) -> Export:
    for pair in run.pairs.all():
        review.decide(pair, cast.reviewer, pair.proposal, left="a")
    return export.freeze(run, cast.engineer)


@pytest.fixture
def base(tmp_path) -> BaseModel:
    """A base model that no test here trains on: the programs refuse it."""
    path = tmp_path / "base"
    path.mkdir()
    (path / "config.json").write_text("{}")
    return BaseModel.objects.create(name="küçük", source=str(path), digest=canonical.digest(canonical.manifest(path)))


def finish(job: Job) -> Job:
    jobs.run(job.pk, tasks.execute)
    job.refresh_from_db()
    return job


def test_a_run_is_queued_with_its_own_settings_only(frozen, base, cast):
    run = runs.start(frozen, base, {"epochs": 2, "beta": 0.2}, cast.engineer)
    assert (run.name, run.job.kind, run.job.state) == ("dpo-0001", Job.Kind.DPO, Job.State.QUEUED)
    assert run.config == {"epochs": 2, "beta": 0.2}
    assert runs.start(frozen, base, {}, cast.engineer).name == "dpo-0002"


@pytest.mark.parametrize(
    "config", [{"beta": 0}, {"rank": "eight"}, {"temperature": 1}, {"base_model": "other"}, {"output_dir": "/etc"}]
)
def test_an_impossible_configuration_queues_nothing(frozen, base, cast, config):
    before = Job.objects.count()
    with pytest.raises(runs.BadConfig):
        runs.start(frozen, base, config, cast.engineer)
    assert Job.objects.count() == before


def test_a_changed_export_is_not_trained_on(frozen, base, cast):
    run = runs.start(frozen, base, {}, cast.engineer)
    path = frozen.directory / "train.jsonl"
    path.write_text(path.read_text().replace("iyi", "fena", 1))
    job = finish(run.job)
    assert job.state == Job.State.FAILED
    assert "train.jsonl" in job.error


def test_a_changed_base_model_is_not_trained_on(frozen, base, cast):
    run = runs.start(frozen, base, {}, cast.engineer)
    (Path(base.source) / "config.json").write_text("[]")
    with pytest.raises(Problem, match="küçük"):
        runs.inspect(run)


def test_the_config_file_names_everything_the_program_needs(frozen, base, cast):
    run = runs.start(frozen, base, {"epochs": 2}, cast.engineer)
    path = runs.write_config(run, runs.output_of(run, 1))
    values = json.loads(path.read_text())
    assert values["base_model"] == base.source
    assert values["base_name"] == "küçük"
    assert Path(values["train"]).is_file()
    assert Path(values["heldout"]).is_file()
    assert values["epochs"] == 2


def test_the_curve_is_stored_while_it_grows_and_torn_lines_wait(frozen, base, cast, tmp_path):
    run = runs.start(frozen, base, {}, cast.engineer)
    claim = jobs.claim(run.job_id)
    assert claim
    path = tmp_path / "metrics.jsonl"
    curve = runs.Curve(run, claim, path)
    curve.read()
    path.write_text('{"step": 2, "split": "train", "loss": 0.69, "reward_margin": 0.1}\n{"step": 4, "spl')
    curve.read()
    assert [point.step for point in run.metrics.all()] == [2]
    with path.open("a") as file:
        file.write('it": "train", "loss": 0.5}\n{"step": 4, "split": "heldout", "loss": 0.6}\n')
    curve.read()
    points = list(TrainingMetric.objects.values_list("step", "split", "values"))
    assert (2, "train", {"loss": 0.69, "reward_margin": 0.1}) in points
    assert len(points) == 3


def test_a_diverged_point_of_the_curve_loses_only_its_bad_values(frozen, base, cast, tmp_path):
    run = runs.start(frozen, base, {}, cast.engineer)
    claim = jobs.claim(run.job_id)
    assert claim
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "split": "train", "loss": NaN, "reward_margin": -Infinity, "reward_accuracy": 0.5}\n')
    runs.Curve(run, claim, path).read()
    assert [(point.step, point.values) for point in run.metrics.all()] == [(2, {"reward_accuracy": 0.5})]


def test_a_diverged_evaluation_is_said_plainly(frozen, base, cast, tmp_path):
    run = runs.start(frozen, base, {}, cast.engineer)
    path = tmp_path / "evaluation.json"
    path.write_text('{"pairs": 3, "reward_margin": NaN, "perplexity_adapter": Infinity, "samples": []}')
    with pytest.raises(Problem, match="reward_margin, perplexity_adapter"):
        evaluation.read(run, path)


def test_progress_lines_are_told_from_other_words():
    line = '{"stage": "train", "done": 3, "total": 9, "loss": 0.4}'
    assert programs.progress_of(line) == {"stage": "train", "done": 3, "total": 9}
    for other in ("Warning: x", "{}", "[1]", "7", '{"stage": "train"}'):
        assert programs.progress_of(other) == {}


def test_a_programs_own_sentence_is_the_jobs_error():
    lines = ['{"stage": "load", "done": 0, "total": 1}', "There is no model foo.", ""]
    assert str(programs.ProgramFailed(2, lines)) == "There is no model foo."
    assert "-9" in str(programs.ProgramFailed(-9, lines))


def test_an_adapter_is_named_after_its_prompts(frozen, base, cast):
    run = runs.start(frozen, base, {}, cast.engineer)
    frozen.run.dataset.name = "Müşteri İlişkileri — Iğdır"
    run.export = frozen
    assert publishing.adapter_name(run) == "musteri-iliskileri-igdir"
    frozen.run.dataset.name = "数据"
    assert publishing.adapter_name(run) == "adapter"


def test_only_finite_numbers_are_signed():
    metrics = {"pairs": 3, "margin": 0.5, "bad": float("nan"), "worse": float("inf"), "samples": [1], "flag": True}
    assert publishing.summary(metrics) == {"pairs": 3, "margin": 0.5}


def test_a_base_model_that_is_there_is_not_trained_again(cast, settings, tmp_path):
    settings.VAR = tmp_path
    path = tmp_path / "models" / "demo-base"
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    digest = canonical.digest(canonical.manifest(path))
    BaseModel.objects.create(name="demo-base", source=str(path), digest=digest)
    assert finish(runs.build_base(cast.acme, cast.engineer)).state == Job.State.DONE


@pytest.fixture(scope="session")
def small_base(tmp_path_factory):
    """A real Llama of a few thousand weights with a real tokenizer: trained, but to no purpose."""
    output = tmp_path_factory.mktemp("models") / "small"
    code = (
        "from pathlib import Path; from training.dpo import pretrain; "
        "recipe = pretrain.Recipe(vocabulary=600, hidden=32, layers=2, heads=2, context=256, epochs=1); "
        f"pretrain.build(Path('data/corpus'), Path({str(output)!r}), 7, recipe)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True)
    return output


@pytest.fixture
def trainable(small_base, db) -> BaseModel:
    digest = canonical.digest(canonical.manifest(small_base))
    return BaseModel.objects.create(name="small", source=str(small_base), digest=digest)


@pytest.mark.training
def test_prompts_become_a_signed_registered_adapter(frozen, trainable, cast, settings, tmp_path):
    settings.VAR = tmp_path / "var"
    run = runs.start(frozen, trainable, {"epochs": 2, "rank": 4, "samples": 2, "sample_tokens": 8}, cast.engineer)
    job = finish(run.job)
    assert (job.state, job.error) == (Job.State.DONE, "")
    assert job.done == job.total > 0

    run.refresh_from_db()
    point = run.metrics.filter(split="train").last()
    assert point
    assert {"loss", "reward_margin", "reward_accuracy"} <= set(point.values)
    assert run.metrics.filter(split="heldout").exists()
    assert run.adapter is None

    measured = run.evaluation
    assert finish(measured.job).state == Job.State.DONE
    measured.refresh_from_db()
    run.refresh_from_db()
    assert measured.metrics["pairs"] == frozen.heldout_pairs
    assert 0 <= measured.metrics["reward_accuracy"] <= 1

    adapter = run.adapter
    assert adapter
    assert str(adapter) == "destek-v1"
    signed = registry.verify(adapter)["predicate"]
    assert signed["export"]["digest"] == frozen.digest
    assert signed["base"] == {"name": "small", "digest": trainable.digest, "revision": ""}
    assert signed["evaluation"]["reward_accuracy"] == measured.metrics["reward_accuracy"]
    assert signed["libraries"]["trl"]
    assert "samples" not in signed["evaluation"]
    kept = store().local(adapter.digest)
    call_command("verify", kept)
    everything = "".join(p.read_text(errors="replace") for p in kept.iterdir() if p.suffix == ".json")
    assert str(tmp_path) not in everything  # no path of this machine leaves with the adapter
    assert publishing.publish(run) == adapter


@pytest.mark.training
def test_an_unknown_base_model_is_said_plainly(frozen, cast, settings, tmp_path):
    settings.VAR = tmp_path / "var"
    missing = BaseModel.objects.create(name="yok", source=str(tmp_path / "no-such-model"))
    job = finish(runs.start(frozen, missing, {}, cast.engineer).job)
    assert job.state == Job.State.FAILED
    assert "no-such-model" in job.error
    assert "Traceback" not in job.error
    assert not TrainingRun.objects.get().output


@pytest.mark.training
def test_an_evaluation_without_an_adapter_publishes_nothing(frozen, trainable, cast, settings, tmp_path):
    settings.VAR = tmp_path / "var"
    run = runs.start(frozen, trainable, {}, cast.engineer)
    output = runs.output_of(run, 1)
    runs.write_config(run, output)
    run.output = str(output.relative_to(settings.ARTIFACTS))
    run.save()
    job = finish(evaluation.start(run, cast.engineer).job)
    assert job.state == Job.State.FAILED
    run.refresh_from_db()
    assert run.adapter is None
