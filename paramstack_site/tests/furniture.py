"""One row of everything for a tenant, made in the order of the loop; its texts carry the tenant's name."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from django.utils import timezone

from attestation import statements
from inference import aliases, registry, rollouts
from inference.models import Adapter, BaseModel, Feedback
from inference.tests.signed import answering, write_adapter
from tenants import costs, decisions, keys, ledger, members, metering, prices, refusals
from tenants.models import APIKey, BudgetAlert, Tenant, User
from training import datasets, review
from training.models import (
    Candidate,
    Evaluation,
    Export,
    Job,
    PreferencePair,
    Prompt,
    RlaifRun,
    TrainingMetric,
    TrainingRun,
    Verdict,
)

SECRET_JUDGE = "what-the-judge-said"
METRICS = {"reward_accuracy": 0.8, "reward_accuracy_low": 0.6, "reward_accuracy_high": 0.9, "pairs": 30}


def furnish(tenant: Tenant, user: User, reviewer: User, directory: Path) -> dict[str, Any]:
    """The keys of the detail pages, by route name, and of what else there is one of."""
    base, _ = BaseModel.objects.get_or_create(name="demo-base", defaults={"source": str(directory)})
    run = preference_run(tenant, user)
    pairs = [pair_of(run, prompt) for prompt in run.dataset.prompts.all()]
    review.decide(pairs[0], reviewer, "a", "b", 3.0)
    adapter = loaded_adapter(tenant, base, directory / f"adapter-{tenant.slug}")
    trained = training_run(run, base, adapter)
    key, _text = keys.create(tenant, f"web {tenant.name}", user)
    book(key, 3)
    opinion = {"score": 2, "comment": f"Yanlış, {tenant.name}."}
    Feedback.objects.create(tenant=tenant, key=key, request_id=f"req_{tenant.slug}_0", **opinion)
    invited, _text = members.invite(tenant, f"davetli@{tenant.slug}.example", "reviewer", user)
    colleague = User.objects.create_user(f"colleague-{tenant.slug}")
    return {
        "dataset": run.dataset.pk,
        "rlaif_run": run.pk,
        "pair": pairs[1].pk,
        "export": trained.export.pk,
        "run": trained.pk,
        "job": trained.job.pk,
        "adapter": adapter.pk,
        "alias": f"{tenant.slug}-destek",
        "rollout": rollouts.start(aliases.create(tenant, f"{tenant.slug}-destek", base, user), adapter, user).pk,
        "key": key.pk,
        "receipt": f"req_{tenant.slug}_0",
        "call": f"req_{tenant.slug}_0",
        "member": members.add(tenant, colleague, "reviewer", user).pk,
        "invitation": invited.pk,
        "decision": refusal_of(key),
        "price": prices.set_(f"{tenant.slug}/destek-v1", user, input_nano_per_mtok=1, output_nano_per_mtok=1).pk,
        "alert": BudgetAlert.objects.create(tenant=tenant, month="202611", percent=50, spent_nano=1, budget_nano=2).pk,
    }


def job(tenant: Tenant, kind: str, user: User, state: str = "done") -> Job:
    began = timezone.now() - timedelta(minutes=5)
    return Job.objects.create(tenant=tenant, kind=kind, state=state, created_by=user, done=3, total=9, started_at=began)


def preference_run(tenant: Tenant, user: User) -> RlaifRun:
    prompts = [f"Merhaba {tenant.name}?", f"{tenant.name}, nasılsınız?"]
    dataset = datasets.create(tenant, f"destek {tenant.name}", prompts, user)
    return RlaifRun.objects.create(
        tenant=tenant, name="rlaif-0001", dataset=dataset, job=job(tenant, "rlaif", user), config={}
    )


def pair_of(run: RlaifRun, prompt: Prompt) -> PreferencePair:
    """A judged pair of two written answers, undecided."""
    a, b = (
        Candidate.objects.create(
            run=run,
            prompt=prompt,
            number=n,
            text=f"{run.tenant.name}: {n}",
            source="written",
            generator="samples.jsonl",
        )
        for n in (1, 2)
    )
    pair = PreferencePair.objects.create(
        tenant=run.tenant, run=run, prompt=prompt, a=a, b=b, proposal="a", score_a=9, score_b=2
    )
    Verdict.objects.create(pair=pair, source="written", judge="samples.jsonl", choice="a", rationale=SECRET_JUDGE)
    return pair


def loaded_adapter(tenant: Tenant, base: BaseModel, files: Path) -> Adapter:
    """A signed adapter that counts as loaded and answering, whatever the engine says."""
    write_adapter(files, base.name)
    name = f"{tenant.slug}/destek"
    statement = statements.sign_directory(str(tenant.pk), statements.ADAPTER, name, files, {"run": "dpo-0001"})
    return answering(registry.register(tenant, "destek", base, files, statement, METRICS))


def training_run(run: RlaifRun, base: BaseModel, adapter: Adapter) -> TrainingRun:
    """A running run with a curve, an evaluation and `adapter`; its export has a row and no files."""
    tenant, user = run.tenant, run.job.created_by
    assert user
    counts = {"train_pairs": 9, "heldout_pairs": 3, "seed": 7}
    frozen = Export.objects.create(
        tenant=tenant, run=run, digest="ab" * 32, path="exports/x", statement=adapter.statement, **counts
    )
    running = job(tenant, "dpo", user, "running")
    trained = TrainingRun.objects.create(
        tenant=tenant, name="dpo-0001", export=frozen, base=base, job=running, config={}, adapter=adapter
    )
    for step in (2, 4):
        values = {"loss": 0.6 - step / 100, "reward_margin": step / 10, "reward_accuracy": 0.7}
        TrainingMetric.objects.create(run=trained, step=step, split="train", values=values)
    Evaluation.objects.create(run=trained, job=job(tenant, "evaluation", user), metrics=METRICS)
    return trained


def refusal_of(key: APIKey) -> str:
    """The text that a caller of `key` got with a refusal."""
    facts = ("model_not_allowed", "key", "allowed_models")
    decision = decisions.Decision(str(key.tenant_id), key.pk, 1_795_602_030_456_789, *facts, model=key.tenant.slug)
    return decisions.issue(refusals.secret(), decision)


def book(key: APIKey, count: int) -> None:
    """Ledger rows of `count` answered calls: req_<slug>_0, req_<slug>_1, ..."""
    now, tenant = timezone.now(), key.tenant
    facts: dict[str, Any] = {
        "tenant": str(tenant.pk),
        "key": key.pk,
        "day": costs.today(tenant, now).isoformat(),
        "status": "settled",
    }
    facts |= {"model": f"{tenant.slug}-destek", "served": "demo-base", "arm": "champion"}
    numbers: dict[str, Any] = {"input_tokens": 7, "output_tokens": 7, "cost_nano": 7, "latency_ms": 7}
    numbers["at_us"] = int(now.timestamp() * 1_000_000)
    ledger.write([metering.Event(f"req_{tenant.slug}_{n}", **facts, **numbers) for n in range(count)])
