"""Pages of the loop: prompts, preference runs, pairs, blind review, exports, training runs."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings as configured
from django.contrib import messages
from django.core.paginator import Page, Paginator
from django.db.models import Count, Max, Q, QuerySet, Sum
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from inference.models import BaseModel
from tenants import access
from training import charts, claude, export, forms, jobs, rlaif
from training import datasets as prompt_sets
from training import review as reviewing
from training import runs as training_runs
from training.models import (
    Candidate,
    Export,
    Job,
    PreferencePair,
    PromptDataset,
    RlaifRun,
    Source,
    TrainingRun,
)
from training.problems import Problem

PAGE = 25
STOP_POLLING = 286  # htmx: swap, and poll no more


@contextmanager
def explained(request: access.Request) -> Iterator[None]:
    """A problem that a person can put right becomes a message on the next page."""
    try:
        yield
    except Problem as problem:
        messages.error(request, str(problem))


def page_of(request: access.Request, rows: QuerySet[Any], size: int = PAGE) -> Page[Any]:
    return Paginator(rows, size).get_page(request.GET.get("page"))


def datasets(request: access.Request) -> HttpResponse:
    """The prompt sets; a POST imports a file, or shows row by row why it cannot."""
    form = forms.Import(request.POST or None, request.FILES or None)
    parsed, status = None, 200
    if request.method == "POST":
        if not access.can(request.role, "engineer"):
            return HttpResponse(status=403)
        if form.is_valid():
            try:
                return _imported(request, form)
            except prompt_sets.Malformed as problem:
                parsed = problem.parsed
                form.add_error(None, str(problem) if not parsed.rows else "")
            except Problem as problem:
                form.add_error("file", str(problem))
        status = 422
    rows = (
        PromptDataset.objects.filter(tenant=request.tenant)
        .annotate(size=Count("prompts"))
        .select_related("created_by")
        .order_by("-created_at")
    )
    context = {"page": page_of(request, rows), "form": form, "parsed": parsed}
    return render(request, "training/datasets.html", context, status=status)


def _imported(request: access.Request, form: forms.Import) -> HttpResponse:
    file, keep_good = form.cleaned_data["file"], form.cleaned_data["keep_good"]
    dataset, parsed = prompt_sets.import_file(
        request.tenant, form.cleaned_data["name"], file, file.name, request.user, keep_good
    )
    left_out = len(parsed.errors) + len(parsed.duplicates)
    words = {"dataset": dataset, "rows": len(parsed.rows), "left_out": left_out}
    messages.success(request, _("%(dataset)s: %(rows)d prompts stored, %(left_out)d rows left out.") % words)
    return redirect("dataset", request.tenant.slug, dataset.pk)


@require_POST
@access.requires("engineer")
def dataset_sample(request: access.Request) -> HttpResponse:
    """Stores the Turkish sample prompts as a data set of this tenant."""
    path = configured.ROOT / "data" / "prompts.jsonl"
    with path.open("rb") as file:
        dataset, _parsed = prompt_sets.import_file(request.tenant, "destek-tr", file, path.name, request.user)
    return redirect("dataset", request.tenant.slug, dataset.pk)


def dataset(request: access.Request, pk: str) -> HttpResponse:
    found = get_object_or_404(PromptDataset.objects.select_related("created_by"), tenant=request.tenant, pk=pk)
    words = request.GET.get("q", "").strip()
    prompts = found.prompts.filter(text__icontains=words) if words else found.prompts.all()
    context = {
        "dataset": found,
        "size": found.prompts.count(),
        "page": page_of(request, prompts),
        "runs": found.rlaif_runs.select_related("job").order_by("-job__created_at")[:10],
    }
    return render(request, "training/dataset.html", context)


def rlaif_runs(request: access.Request) -> HttpResponse:
    """Preference runs and the form that starts one; for htmx what the form's choices will cost."""
    asked = request.GET if request.htmx else request.POST
    form = forms.StartRlaif(asked or None, tenant=request.tenant, initial={"dataset": request.GET.get("dataset")})
    if request.htmx:
        return render(request, "training/_quote.html", {"quote": form.quote()})
    if request.method == "POST":
        if not access.can(request.role, "engineer"):
            return HttpResponse(status=403)
        if form.is_valid():
            with explained(request):
                started = rlaif.start(request.tenant, form.cleaned_data["dataset"], form.config(), request.user)
                return redirect("rlaif_run", request.tenant.slug, started.pk)
    rows = (
        RlaifRun.objects.filter(tenant=request.tenant)
        .select_related("job", "dataset")
        .annotate(size=Count("pairs"), waiting=Count("pairs", filter=Q(pairs__decided_at=None)))
        .order_by("-job__created_at")
    )
    context = {
        "page": page_of(request, rows),
        "form": form,
        "paid": bool(configured.ANTHROPIC_API_KEY),
        "terms": claude.TERMS,
    }
    return render(request, "training/rlaif_runs.html", context, status=422 if form.errors else 200)


def rlaif_run(request: access.Request, pk: str) -> HttpResponse:
    runs = RlaifRun.objects.select_related("job__created_by", "dataset")
    found = get_object_or_404(runs, tenant=request.tenant, pk=pk)
    pairs = found.pairs.aggregate(
        all=Count("pk"), waiting=Count("pk", filter=Q(decided_at=None)), usable=Count("pk", filter=Q(decision__in="ab"))
    )
    context = {
        "run": found,
        "job": found.job,
        "pairs": pairs,
        "sources": _sources(found),
        "judges": found.pairs.values("verdicts__source", "verdicts__judge")
        .exclude(verdicts__source=None)
        .annotate(n=Count("verdicts"), cost=Sum("verdicts__cost_nano")),
        "newest": found.pairs.select_related("prompt", "a", "b").order_by("-created_at", "-pk")[:6],
        "exports": found.exports.all(),
    }
    return _live(request, found.job, "training/_rlaif_run.html", "training/rlaif_run.html", context)


def _sources(run: RlaifRun) -> list[dict[str, Any]]:
    """Who wrote the candidates: source, exact generator, how many, tokens, cost."""
    rows = Candidate.objects.filter(run=run).order_by().values("source", "generator")
    counted = rows.annotate(n=Count("pk"), tokens=Sum("output_tokens"), cost=Sum("cost_nano"))
    return [row | {"label": Source(row["source"]).label} for row in counted.order_by("source", "generator")]


def _live(request: access.Request, job: Job, fragment: str, whole: str, context: dict[str, Any]) -> HttpResponse:
    """The page, or for htmx its live region; the poll ends with the job."""
    if not request.htmx:
        return render(request, whole, context)
    return render(request, fragment, context, status=200 if job.active else STOP_POLLING)


@require_POST
@access.requires("engineer")
def freeze(request: access.Request, pk: str) -> HttpResponse:
    run = get_object_or_404(RlaifRun, tenant=request.tenant, pk=pk)
    with explained(request):
        frozen = export.freeze(run, request.user)
        words = {"train": frozen.train_pairs, "heldout": frozen.heldout_pairs}
        messages.success(request, _("Frozen and signed: %(train)d pairs to train on, %(heldout)d held out.") % words)
        return redirect(f"{reverse('runs', args=[request.tenant.slug])}?export={frozen.pk}")
    return redirect("rlaif_run", request.tenant.slug, pk)


def pairs(request: access.Request) -> HttpResponse:
    """Preference pairs with filters. What a judge said shows only where a person has decided."""
    form = forms.PairFilter(request.GET or None, tenant=request.tenant)
    every = PreferencePair.objects.filter(tenant=request.tenant).select_related("prompt", "run", "a", "b")
    rows = form.narrow(every) if form.is_valid() else every
    rows = rows.prefetch_related("verdicts").order_by("-created_at", "pk")
    context = {"page": page_of(request, rows), "form": form}
    return render(request, "training/pairs.html", context)


def pair(request: access.Request, pk: str) -> HttpResponse:
    rows = PreferencePair.objects.select_related("prompt", "run", "a", "b")
    found = get_object_or_404(rows, tenant=request.tenant, pk=pk)
    decided = found.decided_at is not None
    context = {
        "pair": found,
        "decided": decided,
        "verdicts": found.verdicts.all() if decided else [],
        "reviews": found.reviews.select_related("reviewer") if decided else [],
    }
    return render(request, "training/pair.html", context)


def exports(request: access.Request) -> HttpResponse:
    rows = Export.objects.filter(tenant=request.tenant).select_related("run", "statement__key")
    return render(request, "training/exports.html", {"page": page_of(request, rows.prefetch_related("training_runs"))})


@access.requires("review")
def review(request: access.Request) -> HttpResponse:
    """One blind question; a POST decides it and answers with the next one."""
    after = None
    if request.method == "POST":
        after = _pair(request, request.POST.get("pair", ""))
        if after is None:
            raise Http404
        side = request.POST.get("side", "")
        if side != "skip":
            with explained(request):
                asked = reviewing.question(after, request.user)
                seconds = _seconds(request.POST.get("seconds"))
                reviewing.decide(after, request.user, asked.choice(side), asked.left_is, seconds)
        if not request.htmx:
            return redirect(f"{reverse('review', args=[request.tenant.slug])}?after={after.pk}")
    return _next_question(request, after)


def _pair(request: access.Request, text: str) -> PreferencePair | None:
    """The tenant's pair with that id, or None; anything may stand in a query."""
    try:
        pk = uuid.UUID(text)
    except ValueError:
        return None
    rows = PreferencePair.objects.filter(tenant=request.tenant, pk=pk)
    return rows.select_related("prompt", "a", "b").first()


def _next_question(request: access.Request, after: PreferencePair | None) -> HttpResponse:
    found = _pair(request, request.GET.get("pair", ""))
    after = after or _pair(request, request.GET.get("after", ""))
    found = found or reviewing.next_pair(request.tenant, request.user, after)
    counts = PreferencePair.objects.filter(tenant=request.tenant).aggregate(
        all=Count("pk"), waiting=Count("pk", filter=Q(decided_at=None))
    )
    context = {
        "question": reviewing.question(found, request.user) if found else None,
        "all": counts["all"],
        "waiting": counts["waiting"],
        "done": counts["all"] - counts["waiting"],
    }
    return render(request, "training/_question.html" if request.htmx else "training/review.html", context)


def _seconds(text: str | None) -> float | None:
    """How long the page was looked at, as the browser says it: 0 to 3600 seconds, or unknown."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and 0 < seconds <= 3600 else None


@require_POST
@access.requires("review")
def review_undo(request: access.Request) -> HttpResponse:
    taken_back = reviewing.undo(request.tenant, request.user)
    address = reverse("review", args=[request.tenant.slug])
    return redirect(f"{address}?pair={taken_back.pk}" if taken_back else address)


def runs(request: access.Request) -> HttpResponse:
    """Training runs and the form that starts one."""
    form = forms.StartTraining(
        request.POST or None, tenant=request.tenant, initial={"export": request.GET.get("export")}
    )
    if request.method == "POST":
        if not access.can(request.role, "engineer"):
            return HttpResponse(status=403)
        if form.is_valid():
            with explained(request):
                started = training_runs.start(
                    form.cleaned_data["export"], form.cleaned_data["base"], form.config(), request.user
                )
                return redirect("run", request.tenant.slug, started.pk)
    rows = (
        TrainingRun.objects.filter(tenant=request.tenant)
        .select_related("job", "base", "export__run", "adapter", "evaluation__job")
        .annotate(steps=Max("metrics__step"))
        .order_by("-job__created_at")
    )
    context = {
        "page": page_of(request, rows),
        "form": form,
        "bases": BaseModel.objects.count(),
        "exports": Export.objects.filter(tenant=request.tenant).count(),
    }
    return render(request, "training/runs.html", context, status=422 if form.errors else 200)


def run(request: access.Request, pk: str) -> HttpResponse:
    rows = TrainingRun.objects.select_related("job__created_by", "base", "export__run", "adapter", "evaluation__job")
    found = get_object_or_404(rows, tenant=request.tenant, pk=pk)
    evaluation = getattr(found, "evaluation", None)
    points = list(found.metrics.values_list("split", "step", "values"))
    job = evaluation.job if evaluation and evaluation.job.active else found.job
    context = {
        "run": found,
        "job": found.job,
        "evaluation": evaluation,
        "written": _written(found, evaluation.metrics.get("samples", []) if evaluation else []),
        "busy": job.active,
        "curves": charts.curves(points, found.job.total, (_("training"), _("held out"))),
        "steps": max((step for _split, step, _values in points), default=0),
        "table": charts.table(points),
        "log": training_runs.log_tail(found.job, 12),
    }
    return _live(request, job, "training/_run.html", "training/run.html", context)


def _written(run: TrainingRun, samples: list[dict[str, str]]) -> set[str]:
    """Which of the chosen answers shown beside the models' are written samples."""
    shown = Candidate.objects.filter(run=run.export.run_id, text__in=[sample["chosen"] for sample in samples])
    return set(shown.filter(source=Source.WRITTEN).values_list("text", flat=True))


@require_POST
@access.requires("engineer")
def job_cancel(request: access.Request, pk: str) -> HttpResponse:
    job = get_object_or_404(Job, tenant=request.tenant, pk=pk)
    if job.active:
        jobs.cancel(job)
        messages.success(request, _("Asked the job to stop. It ends at its next step; what it stored stays."))
    return _back(request)


@require_POST
@access.requires("engineer")
def job_retry(request: access.Request, pk: str) -> HttpResponse:
    """Queues a failed or stopped job again; what it stored stays and is not paid for twice."""
    jobs.retry(get_object_or_404(Job, tenant=request.tenant, pk=pk))
    return _back(request)


def _back(request: access.Request) -> HttpResponse:
    """To the page the form stood on, if it is one of ours."""
    target = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(target, {request.get_host()}, request.is_secure()):
        target = reverse("overview", args=[request.tenant.slug])
    return HttpResponseRedirect(target)  # `redirect` would take the text for a view's name
