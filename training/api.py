"""REST of the loop: datasets, preference runs, pairs and decisions, exports, training runs, jobs."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from rest_framework import serializers, status
from rest_framework.exceptions import PermissionDenied
from rest_framework.response import Response

from inference import registry
from tenants.rest import endpoint, page, valid
from training import datasets, export, jobs, review, rlaif, runs
from training.models import Choice, Export, Job, PreferencePair, Prompt, PromptDataset, RlaifRun, TrainingRun


class JobSerializer(serializers.ModelSerializer[Job]):
    class Meta:
        model = Job
        fields = ["id", "kind", "state", "stage", "done", "total", "error", "cost_nano", "created_at", "ended_at"]


class DatasetSerializer(serializers.ModelSerializer[PromptDataset]):
    class Meta:
        model = PromptDataset
        fields = ["id", "name", "version", "digest", "created_at"]


class PromptSerializer(serializers.ModelSerializer[Prompt]):
    class Meta:
        model = Prompt
        fields = ["number", "text", "digest"]


class RlaifRunSerializer(serializers.ModelSerializer[RlaifRun]):
    job = JobSerializer()
    dataset = serializers.StringRelatedField[PromptDataset]()

    class Meta:
        model = RlaifRun
        fields = ["id", "name", "dataset", "config", "job"]


class PairSerializer(serializers.ModelSerializer[PreferencePair]):
    """A pair stays blind until it is decided: no source, no judge, no score before."""

    prompt = serializers.CharField(source="prompt.text")
    a = serializers.CharField(source="a.text")
    b = serializers.CharField(source="b.text")
    revealed = serializers.SerializerMethodField()

    class Meta:
        model = PreferencePair
        fields = ["id", "prompt", "a", "b", "decision", "decided_at", "revealed"]

    def get_revealed(self, pair: PreferencePair) -> dict[str, Any] | None:
        if pair.decided_at is None:
            return None
        sides = {
            side: {"source": made.source, "generator": made.generator} for side, made in (("a", pair.a), ("b", pair.b))
        }
        verdicts = pair.verdicts.values("source", "judge", "choice", "score_a", "score_b", "swapped", "rationale")
        return {**sides, "proposal": pair.proposal, "verdicts": list(verdicts)}


class ExportSerializer(serializers.ModelSerializer[Export]):
    run = serializers.StringRelatedField[RlaifRun]()

    class Meta:
        model = Export
        fields = ["id", "run", "digest", "train_pairs", "heldout_pairs", "seed", "created_at"]


class RunSerializer(serializers.ModelSerializer[TrainingRun]):
    job = JobSerializer()
    base = serializers.CharField(source="base.name")
    adapter = serializers.StringRelatedField[Any]()

    class Meta:
        model = TrainingRun
        fields = ["id", "name", "export", "base", "config", "job", "adapter"]


class NewDataset(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=80)
    file = serializers.FileField()
    keep_good = serializers.BooleanField(default=False, help_text="store the good rows although some are bad")


class NewRlaifRun(serializers.Serializer[Any]):
    dataset = serializers.UUIDField()
    config = serializers.DictField(default=dict)


class Decision(serializers.Serializer[Any]):
    choice = serializers.ChoiceField(choices=Choice.choices)
    left = serializers.ChoiceField(choices=["a", "b"], default="a", help_text="which candidate stood on the left")
    seconds = serializers.FloatField(required=False, min_value=0)


class NewExport(serializers.Serializer[Any]):
    run = serializers.UUIDField(help_text="a preference run")
    seed = serializers.IntegerField(default=7, min_value=0, max_value=2**31 - 1)


class NewRun(serializers.Serializer[Any]):
    export = serializers.UUIDField()
    base = serializers.CharField()
    config = serializers.DictField(default=dict)


@endpoint(["GET", "POST"], takes={"POST": NewDataset}, lists=DatasetSerializer, creates=True)
def dataset_list(request: Any) -> Response:
    """List prompt datasets, or import a JSONL or CSV file (multipart) as the next version of a name."""
    if request.method == "GET":
        return page(request, request.tenant.datasets.all(), DatasetSerializer)
    wanted = valid(NewDataset, request.data)
    file = wanted["file"]
    made, parsed = datasets.import_file(
        request.tenant, wanted["name"], file, file.name, request.person, wanted["keep_good"]
    )
    left_out = [{"line": error.line, "column": error.column, "reason": error.reason} for error in parsed.errors]
    report = {"rows": len(parsed.rows), "bad": left_out, "duplicates": len(parsed.duplicates)}
    return Response(DatasetSerializer(made).data | report, status=status.HTTP_201_CREATED)


@endpoint(["GET"], lists=PromptSerializer)
def dataset(request: Any, dataset_id: str) -> Response:
    """A dataset's prompts in the file's order."""
    found = get_object_or_404(PromptDataset, tenant=request.tenant, pk=dataset_id)
    return page(request, found.prompts.all(), PromptSerializer)


@endpoint(["GET", "POST"], takes={"POST": NewRlaifRun}, lists=RlaifRunSerializer, creates=True)
def rlaif_list(request: Any) -> Response:
    """List preference runs, or start one: prompts -> candidates -> verdicts -> pairs."""
    if request.method == "GET":
        return page(request, request.tenant.rlaif_runs.select_related("job", "dataset"), RlaifRunSerializer)
    wanted = valid(NewRlaifRun, request.data)
    found = get_object_or_404(PromptDataset, tenant=request.tenant, pk=wanted["dataset"])
    run = rlaif.start(request.tenant, found, wanted["config"], request.person)
    return Response(RlaifRunSerializer(run).data, status=status.HTTP_201_CREATED)


@endpoint(["GET"], lists=PairSerializer)
def pair_list(request: Any) -> Response:
    """Preference pairs; `?state=waiting` or `?state=decided`."""
    rows = request.tenant.pairs.select_related("prompt", "a", "b")
    state = request.query_params.get("state")
    if state in {"waiting", "decided"}:
        rows = rows.filter(decided_at__isnull=state == "waiting")
    return page(request, rows, PairSerializer)


@endpoint(["POST"], write="review", takes={"POST": Decision}, answers=PairSerializer)
def decision(request: Any, pair_id: str) -> Response:
    """Decide a pair. People decide: an API key cannot."""
    if request.person is None:
        raise PermissionDenied
    pair = get_object_or_404(PreferencePair, tenant=request.tenant, pk=pair_id)
    wanted = valid(Decision, request.data)
    review.decide(pair, request.person, wanted["choice"], wanted["left"], wanted.get("seconds"))
    pair.refresh_from_db()
    return Response(PairSerializer(pair).data)


@endpoint(["GET", "POST"], takes={"POST": NewExport}, lists=ExportSerializer, creates=True)
def export_list(request: Any) -> Response:
    """List frozen exports, or freeze a preference run's decided pairs."""
    if request.method == "GET":
        return page(request, request.tenant.exports.select_related("run"), ExportSerializer)
    wanted = valid(NewExport, request.data)
    run = get_object_or_404(RlaifRun, tenant=request.tenant, pk=wanted["run"])
    frozen = export.freeze(run, request.person, seed=wanted["seed"])
    return Response(ExportSerializer(frozen).data, status=status.HTTP_201_CREATED)


@endpoint(["GET", "POST"], takes={"POST": NewRun}, lists=RunSerializer, creates=True)
def run_list(request: Any) -> Response:
    """List training runs, or start DPO on an export."""
    if request.method == "GET":
        return page(request, request.tenant.training_runs.select_related("job", "base", "adapter"), RunSerializer)
    wanted = valid(NewRun, request.data)
    frozen = get_object_or_404(Export, tenant=request.tenant, pk=wanted["export"])
    started = runs.start(frozen, registry.base_model(wanted["base"]), wanted["config"], request.person)
    return Response(RunSerializer(started).data, status=status.HTTP_201_CREATED)


@endpoint(["GET"], answers=RunSerializer)
def run(request: Any, run_id: str) -> Response:
    """A training run with its curve and its evaluation."""
    found = get_object_or_404(TrainingRun, tenant=request.tenant, pk=run_id)
    points = list(found.metrics.values("step", "split", "values"))
    evaluation = getattr(found, "evaluation", None)
    more = {"points": points, "evaluation": evaluation.metrics if evaluation else None}
    return Response(RunSerializer(found).data | more)


@endpoint(["GET", "POST", "DELETE"], answers=JobSerializer)
def job(request: Any, job_id: str) -> Response:
    """A job's state; DELETE asks it to stop, POST queues a failed or stopped one again."""
    found = get_object_or_404(Job, tenant=request.tenant, pk=job_id)
    if request.method == "DELETE":
        jobs.cancel(found)
    elif request.method == "POST":
        jobs.retry(found)
    return Response(JobSerializer(found).data)
