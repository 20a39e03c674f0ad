"""The stages of the loop, in order. Each takes the `Scene`, asks whether it was done, works, and answers one line."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.utils import translation

from inference import registry, rollouts, serving
from inference.engines import client
from inference.models import Adapter, Alias, BaseModel, Residence, Rollout
from paramstack_site.demo import people
from tenants.models import Tenant, User
from training import datasets, export, jobs, preferences, review, rlaif, runs
from training.models import Choice, Evaluation, Export, Job, PromptDataset, RlaifRun, Source, TrainingRun

Progress = Callable[[int, int, str], None]  # done, total, words
LEFT_FOR_YOU = 12  # pairs that the demo reviewer leaves undecided
CANARY_BP = 1_000  # 10 %


class StageFailed(Exception):
    """A stage did not end well; the sentence says what happened and what to do."""


@dataclass
class Scene:
    """What the stages hand to each other."""

    kept: people.Secrets
    progress: Progress = lambda done, total, words: None
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def tenant(self) -> Tenant:
        return Tenant.objects.get(slug="acme")

    @property
    def engineer(self) -> User:
        return User.objects.get(username="engineer")

    @property
    def run(self) -> TrainingRun:
        return TrainingRun.objects.filter(tenant=self.tenant, job__state=Job.State.DONE).latest("job__created_at")

    @property
    def adapter(self) -> Adapter:
        if (adapter := self.run.adapter) is None:
            raise StageFailed("The training run has no adapter; its page says why. Start `make demo` again.")
        return adapter


def settle_in(scene: Scene) -> str:
    tenants = people.settle_in(scene.kept)
    names = ", ".join(tenant.name for tenant in tenants.values())
    return f"{names}; {User.objects.count()} people, one API key each, quota and monthly budget set"


def build_base(scene: Scene) -> str:
    if not BaseModel.objects.filter(name=people.BASE).exists():
        follow(scene, runs.build_base(scene.tenant, scene.engineer))
    base = registry.base_model(people.BASE)
    people.open_alias(scene.tenant)
    return f"{base.name} pre-trained on Turkish text, digest {base.digest[:12]}"


def import_prompts(scene: Scene) -> str:
    path = settings.ROOT / "data" / "prompts.jsonl"
    dataset = PromptDataset.objects.filter(tenant=scene.tenant, name="destek-tr").first()
    if dataset is None:
        with path.open("rb") as file:
            parsed = datasets.read(file, path.name)
        dataset = datasets.create(scene.tenant, "destek-tr", parsed.rows, scene.engineer)
    return f"{dataset}: {dataset.prompts.count()} prompts, digest {dataset.digest[:12]}"


def prefer(scene: Scene) -> str:
    dataset = PromptDataset.objects.get(tenant=scene.tenant, name="destek-tr")
    run = RlaifRun.objects.filter(tenant=scene.tenant).first()
    if run:
        jobs.retry(run.job)  # does nothing unless it failed or was stopped
    else:
        wait_for_engine(scene)
        run = rlaif.start(scene.tenant, dataset, preferences.default_config(), scene.engineer)
    follow(scene, run.job)
    with translation.override("en"):
        answers = sources(run.candidates.values_list("source", flat=True))
        verdicts = sources(run.pairs.values_list("verdicts__source", flat=True))
    return (
        f"{run.candidates.count()} answers ({answers}) -> {run.pairs.count()} pairs "
        f"(verdicts: {verdicts}), cost ${run.job.cost_nano / 1e9:.2f}"
    )


def sources(found: Iterable[str | None]) -> str:
    """Who wrote or judged, in words: a written sample never goes by another name."""
    return ", ".join(sorted({str(Source(source).label).lower() for source in found if source}))


def decide(scene: Scene) -> str:
    """The demo reviewer reads like a careful person would: follows the proposal, and is undecided where it is."""
    tenant, reviewer = scene.tenant, User.objects.get(username=people.REVIEWER)
    waiting = list(tenant.pairs.waiting().order_by("prompt__number", "a__number", "b__number"))
    sides = random.Random(7)
    keep = {pair.pk for pair in waiting[:: max(1, len(waiting) // LEFT_FOR_YOU)][:LEFT_FOR_YOU]}
    todo = [pair for pair in waiting if pair.pk not in keep] if len(waiting) > LEFT_FOR_YOU else []
    for number, pair in enumerate(todo, 1):
        choice = pair.proposal or Choice.TIE
        review.decide(pair, reviewer, choice, left=sides.choice("ab"), seconds=None)
        scene.progress(number, len(todo), "")
    decided = tenant.pairs.exclude(decided_at=None).count()
    return f"{decided} pairs decided by {people.REVIEWER}, {tenant.pairs.waiting().count()} left for you"


def freeze(scene: Scene) -> str:
    run = RlaifRun.objects.filter(tenant=scene.tenant, job__state=Job.State.DONE).latest("job__created_at")
    frozen = Export.objects.filter(run=run).first() or export.freeze(run, scene.engineer)
    return f"{frozen.train_pairs} pairs to train on, {frozen.heldout_pairs} held out, digest {frozen.digest[:12]}"


def train(scene: Scene) -> str:
    frozen = Export.objects.filter(tenant=scene.tenant).latest("created_at")
    run = TrainingRun.objects.filter(tenant=scene.tenant).first()
    if run:
        jobs.retry(run.job)
    else:
        run = runs.start(frozen, registry.base_model(people.BASE), {}, scene.engineer)

    def words() -> str:
        point = run.metrics.filter(split="train").last()
        values = point.values if point else {}
        if "loss" not in values:
            return ""
        return f"loss {values['loss']:.3f}  margin {values.get('reward_margin', 0):+.2f}"

    follow(scene, run.job, words)
    return f"{run.name}: {words()}"


def evaluate(scene: Scene) -> str:
    run = scene.run
    evaluation = wait_for(lambda: Evaluation.objects.filter(run=run).first(), "the evaluation to be queued")
    jobs.retry(evaluation.job)
    follow(scene, evaluation.job)
    evaluation.refresh_from_db()
    run.refresh_from_db()
    metrics = evaluation.metrics
    scene.figures["demo_reward_accuracy"] = metrics["reward_accuracy"]
    scene.figures["demo_pairs_heldout"] = metrics["pairs"]
    return (
        f"held-out reward accuracy {metrics['reward_accuracy']:.3f} on {metrics['pairs']} pairs of unseen prompts; "
        f"{run.adapter} signed and registered"
    )


def load(scene: Scene) -> str:
    adapter = scene.adapter
    wait_for_engine(scene)
    if adapter.state != Adapter.State.LOADED:
        registry.load(adapter)

    def answers() -> bool:
        for residence in adapter.residences.filter(state=Residence.State.FAILED):
            raise StageFailed(f"{adapter} is not served. {residence.get_why_display()} ({residence.note})")
        return adapter.residences.filter(state=Residence.State.ELIGIBLE).exists()

    wait_for(answers, f"{adapter} to answer")
    return f"{adapter} verified against its signature (digest {adapter.digest[:12]}), loaded beside the base, probed"


def start_canary(scene: Scene) -> str:
    alias = Alias.objects.get(tenant=scene.tenant, name=people.ALIAS)
    adapter = scene.adapter
    rollout = Rollout.objects.filter(alias=alias, adapter=adapter).first()
    if rollout is None:
        rollout = rollouts.start(alias, adapter, scene.engineer, CANARY_BP)
    return f"{alias} -> {adapter} at {rollout.weight_bp / 100:g} %"


def wait_for_engine(scene: Scene, seconds: float = 240) -> None:
    engine = serving.engine()

    def healthy() -> bool:
        try:
            engine.health()
        except client.EngineError:
            return False
        return True

    wait_for(healthy, f"the engine at {settings.ENGINE_URL}", seconds)


def wait_for(ready: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """The first true answer of `ready`, asked five times a second."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := ready():
            return answer
        time.sleep(0.2)
    raise StageFailed(f"Waited {seconds:.0f} s for {what}. The log of that process, in var/log, says why.")


def follow(scene: Scene, job: Job, words: Callable[[], str] = lambda: "") -> None:
    """Shows a job's progress until it ends; a failed job raises its own sentence."""
    while True:
        job.refresh_from_db()
        scene.progress(job.done, job.total, words() or job.stage)
        if not job.active:
            break
        time.sleep(0.3)
    if job.state != Job.State.DONE:
        raise StageFailed(job.error or f"The job {job.pk} was cancelled. Start `make demo` again.")
