"""Where one tenant's loop stands: its eight links from the rows, and the one thing that waits for a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, Max
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from inference.models import Adapter, Alias, Rollout
from paramstack_site.templatetags.console import basis, duration, percent, when
from tenants.models import Tenant, User
from training.models import Evaluation, Export, Job, PreferencePair, PromptDataset, RlaifRun, TrainingRun


@dataclass(frozen=True)
class Link:
    """One link of the chain. `kind` is a status of the vocabulary, "" where there is nothing to judge yet."""

    name: str
    symbol: str
    url: str
    value: str = "–"
    unit: str = ""
    kind: str = ""
    word: str = ""
    note: str = ""

    @property
    def dot(self) -> str:
        return {"proven": "proven", "live": "live", "running": "running", "you": "you", "done": "done"}.get(
            self.kind, "todo"
        )

    @property
    def line(self) -> str:
        """The stretch to the next link: walked, being walked, or not yet."""
        return {"done": "past", "proven": "past", "live": "past", "running": "flow"}.get(self.kind, "todo")


@dataclass(frozen=True)
class Step:
    """What waits for a person: one sentence, why, and one action."""

    tone: str
    symbol: str
    title: str
    text: str
    url: str = ""
    action: str = ""


@dataclass(frozen=True)
class Loop:
    """The newest row of every link; read once, judged by `chain` and `next_step`."""

    tenant: Tenant
    dataset: PromptDataset | None
    rlaif: RlaifRun | None
    pairs: int
    waiting: int
    decided_at: Any
    export: Export | None
    run: TrainingRun | None
    steps: int
    evaluation: Evaluation | None
    adapter: Adapter | None
    alias: Alias | None
    rollout: Rollout | None
    calls: int


def read(tenant: Tenant) -> Loop:
    """Twelve queries, none of which grows with the tenant's age except counts."""
    pairs = PreferencePair.objects.filter(tenant=tenant)
    totals = pairs.aggregate(all=Count("pk"), decided_at=Max("decided_at"))
    hour = timezone.now() - timedelta(hours=1)
    run = TrainingRun.objects.filter(tenant=tenant).select_related("job", "adapter").first()
    return Loop(
        tenant=tenant,
        dataset=_newest_dataset(tenant),
        rlaif=RlaifRun.objects.filter(tenant=tenant).select_related("job").order_by("-job__created_at").first(),
        pairs=totals["all"],
        waiting=pairs.waiting().count(),
        decided_at=totals["decided_at"],
        export=Export.objects.filter(tenant=tenant).first(),
        run=run,
        steps=(run.metrics.aggregate(last=Max("step"))["last"] or 0) if run else 0,
        evaluation=Evaluation.objects.filter(run=run).select_related("job").first() if run else None,
        adapter=Adapter.objects.filter(tenant=tenant).first(),
        alias=Alias.objects.filter(tenant=tenant).select_related("champion", "challenger", "base").first(),
        rollout=Rollout.objects.filter(alias__tenant=tenant, state=Rollout.State.RUNNING)
        .select_related("alias", "adapter")
        .first(),
        calls=tenant.usage.filter(occurred_at__gte=hour).count(),
    )


def _newest_dataset(tenant: Tenant) -> PromptDataset | None:
    counted = PromptDataset.objects.filter(tenant=tenant).annotate(size=Count("prompts"))
    return counted.order_by("-created_at").first()  # a GROUP BY drops the model's own order


def _number(value: int) -> str:
    from django.utils.formats import number_format

    return str(number_format(value))


def _job(job: Job | None) -> tuple[str, str]:
    """Status kind and note of a job."""
    if job is None:
        return "", ""
    kind = {"queued": "queued", "running": "running", "done": "done", "failed": "failed"}.get(job.state, "cancelled")
    left = job.seconds_left
    note = _("about %(duration)s left") % {"duration": duration(left)} if left else when(job.ended_at or job.created_at)
    return kind, note


def chain(loop: Loop) -> list[Link]:
    return [
        _prompts(loop),
        _preferences(loop),
        _review(loop),
        _training(loop),
        _evaluation(loop),
        _adapter(loop),
        _canary(loop),
        _production(loop),
    ]


def _prompts(loop: Loop) -> Link:
    link = _link(loop, _("Prompts"), "message-square-text", "datasets")
    if not loop.dataset:
        return link()
    size = loop.dataset.size  # type: ignore[attr-defined]  # annotated in read()
    return link(value=_number(size), kind="done", word=_("Ready"), note=str(loop.dataset))


def _preferences(loop: Loop) -> Link:
    link = _link(loop, _("Preferences"), "scale", "rlaif_runs")
    if not loop.rlaif:
        return link()
    job = loop.rlaif.job
    kind, note = _job(job)
    if job.active:
        return link(value=_number(job.done), unit=f"/ {_number(job.total)}", kind=kind, note=note)
    return link(value=_number(loop.pairs), unit=_("pairs"), kind=kind, note=loop.rlaif.name)


def _review(loop: Loop) -> Link:
    link = _link(loop, _("Review"), "list-checks", "review")
    if not loop.pairs:
        return link()
    kind = "you" if loop.waiting else "done"
    note = ngettext("%(n)s pair", "%(n)s pairs", loop.waiting) % {"n": _number(loop.waiting)} if loop.waiting else ""
    return link(value=_number(loop.pairs - loop.waiting), unit=f"/ {_number(loop.pairs)}", kind=kind, note=note)


def _training(loop: Loop) -> Link:
    link = _link(loop, _("Training"), "graduation-cap", "runs")
    if not loop.run:
        return link()
    kind, note = _job(loop.run.job)
    job = loop.run.job
    if not job.active:
        return link(value=_number(loop.steps), unit=_("steps"), kind=kind, note=loop.run.name)
    unit = _("/ %(total)s steps") % {"total": _number(job.total)} if job.total else ""
    return link(value=_number(job.done), unit=unit, kind=kind, note=note)


def _evaluation(loop: Loop) -> Link:
    link = _link(loop, _("Evaluation"), "gauge", "runs")
    if not loop.evaluation:
        return link()
    kind, note = _job(loop.evaluation.job)
    accuracy = loop.evaluation.metrics.get("reward_accuracy")
    return link(value=percent(accuracy), kind=kind, note=_("reward accuracy") if accuracy is not None else note)


def _adapter(loop: Loop) -> Link:
    link = _link(loop, _("Signed adapter"), "lock", "adapters")
    if not loop.adapter:
        return link()
    return link(value=f"v{loop.adapter.version}", kind="proven", word=_("Signed"), note=loop.adapter.name)


def _canary(loop: Loop) -> Link:
    link = _link(loop, _("Canary"), "rocket", "rollouts")
    if not loop.rollout:
        return link()
    return link(value=basis(loop.rollout.weight_bp), kind="running", word=_("On trial"), note=str(loop.rollout.adapter))


def _production(loop: Loop) -> Link:
    link = _link(loop, _("Production"), "circle-dot", "usage")
    if not loop.alias:
        return link()
    champion = str(loop.alias.champion or loop.alias.base)
    return link(value=_number(loop.calls), unit=_("calls/hour"), kind="live", note=champion)


def _link(loop: Loop, name: str, symbol: str, route: str) -> Callable[..., Link]:
    def make(**rest: Any) -> Link:
        return Link(name, symbol, reverse(route, args=[loop.tenant.slug]), **rest)

    return make


def next_step(loop: Loop, user: User) -> Step:
    """The first of these that holds; the order is that of the loop, with failures before it."""
    for find in (_failed, _to_review, _to_decide, _to_import, _to_compare, _to_freeze, _to_train, _to_load, _to_start):
        step = find(loop)
        if step:
            return step
    return Step("ok", "circle-check", _("Nothing waits for you"), _("The loop is where the rows below say it is."))


def _failed(loop: Loop) -> Step | None:
    """The newest run of either kind, if it failed and nothing newer replaced it."""
    for run, route, job in (
        (loop.rlaif, "rlaif_run", loop.rlaif and loop.rlaif.job),
        (loop.run, "run", loop.run and loop.run.job),
        (loop.run, "run", loop.evaluation and loop.evaluation.job),
    ):
        if run and job and job.state == Job.State.FAILED:
            url = reverse(route, args=[loop.tenant.slug, run.pk])
            title = _("%(run)s did not end well") % {"run": run.name}
            return Step("bad", "octagon-x", title, job.error, url, _("See what happened"))
    return None


def _to_review(loop: Loop) -> Step | None:
    if not loop.waiting:
        return None
    title = ngettext(
        "%(n)s preference pair waits for a decision", "%(n)s preference pairs wait for a decision", loop.waiting
    )
    return Step(
        "",
        "circle-user-round",
        title % {"n": _number(loop.waiting)},
        _("The next training run learns from what people decide here."),
        reverse("review", args=[loop.tenant.slug]),
        _("Start reviewing"),
    )


def _to_decide(loop: Loop) -> Step | None:
    if not loop.rollout:
        return None
    title = _("%(adapter)s is on trial with %(share)s of the calls")
    return Step(
        "",
        "rocket",
        title % {"adapter": loop.rollout.adapter, "share": basis(loop.rollout.weight_bp)},
        _("Compare the arms; then promote it or roll it back."),
        reverse("rollout", args=[loop.tenant.slug, loop.rollout.pk]),
        _("Open the rollout"),
    )


def _to_import(loop: Loop) -> Step | None:
    if loop.dataset:
        return None
    text = _("The loop starts with prompts: what your users really ask.")
    url = reverse("datasets", args=[loop.tenant.slug])
    return Step("", "message-square-text", _("Add the first prompt set"), text, url, _("Add prompts"))


def _to_compare(loop: Loop) -> Step | None:
    if loop.rlaif:
        return None
    title = _("%(dataset)s is ready for answers and preferences") % {"dataset": loop.dataset}
    text = _("Each prompt gets several answers; a judge compares them, and people decide.")
    url = reverse("rlaif_runs", args=[loop.tenant.slug])
    return Step("", "scale", title, text, url, _("Start a preference run"))


def _to_freeze(loop: Loop) -> Step | None:
    stale = loop.decided_at and (not loop.export or loop.decided_at > loop.export.created_at)
    if not stale or not loop.rlaif or loop.rlaif.job.active:
        return None
    text = _("A frozen, hashed and signed file is what training reads; later decisions do not change it.")
    url = reverse("rlaif_run", args=[loop.tenant.slug, loop.rlaif.pk])
    return Step("", "list-checks", _("The decisions can be frozen for training"), text, url, _("Freeze the decisions"))


def _to_train(loop: Loop) -> Step | None:
    if not loop.export or (loop.run and loop.run.export_id == loop.export.pk):
        return None
    title = _("The newest decisions have not been trained on")
    text = _("%(train)s pairs to train on, %(heldout)s held out.") % {
        "train": _number(loop.export.train_pairs),
        "heldout": _number(loop.export.heldout_pairs),
    }
    return Step("", "graduation-cap", title, text, reverse("runs", args=[loop.tenant.slug]), _("Start training"))


def _to_load(loop: Loop) -> Step | None:
    if not loop.adapter or loop.adapter.state != Adapter.State.REGISTERED:
        return None
    title = _("%(adapter)s is signed and not loaded yet") % {"adapter": loop.adapter}
    url = reverse("adapter", args=[loop.tenant.slug, loop.adapter.pk])
    return Step("", "layers", title, _("Its files are verified again before the engine reads them."), url, _("Open it"))


def _to_start(loop: Loop) -> Step | None:
    served = {loop.alias.champion_id, loop.alias.challenger_id} if loop.alias else set()
    if not loop.adapter or loop.adapter.state != Adapter.State.LOADED or loop.adapter.pk in served:
        return None
    title = _("%(adapter)s is loaded and gets no calls yet") % {"adapter": loop.adapter}
    url = reverse("adapter", args=[loop.tenant.slug, loop.adapter.pk])
    text = _("Give it a small share of the calls first.")
    return Step("", "rocket", title, text, url, _("Start a canary"))
