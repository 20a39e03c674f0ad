"""REST of calls: live figures, looking for calls, one call, feedback's figures, the playground's key."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rest_framework import serializers, status
from rest_framework.exceptions import PermissionDenied
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param

from inference import opinions, standing
from inference.models import Feedback
from inference.views import calls as pages
from tenants import gauges, playground
from tenants import traffic as lately
from tenants.api.keys import FreshKey, KeySerializer
from tenants.api.usage import UsageSerializer
from tenants.costs import exports
from tenants.rest import Dollars, endpoint, page, valid
from tenants.rest.paging import BadCursor, limit_of
from tenants.traffic import asking, causes, priced, search
from tenants.views.take import stream


class FeedbackSerializer(serializers.ModelSerializer[Feedback]):
    class Meta:
        model = Feedback
        fields = ["request_id", "score", "thumbs", "comment", "at"]


class TimesSerializer(serializers.Serializer[Any]):
    n = serializers.IntegerField(help_text="calls")
    p50 = serializers.IntegerField(help_text="ms, to 1 %")
    p95 = serializers.IntegerField()
    p99 = serializers.IntegerField()


class BarSerializer(serializers.Serializer[Any]):
    start = serializers.DateTimeField()
    settled = serializers.IntegerField()
    blocked = serializers.IntegerField()
    broken = serializers.IntegerField(help_text="aborted, or known by an estimate only")
    refused = serializers.IntegerField(help_text="by a limit or the budget; in no row of the ledger")
    latency = TimesSerializer(allow_null=True)
    first = TimesSerializer(allow_null=True, help_text="time to the first token of streamed answers")


class AnsweringSerializer(serializers.Serializer[Any]):
    model = serializers.CharField()
    served = serializers.CharField()
    adapter_digest = serializers.CharField()
    calls = serializers.IntegerField()
    unsettled = serializers.IntegerField()
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    last = serializers.DateTimeField()


class CauseSerializer(serializers.Serializer[Any]):
    cause = serializers.CharField()
    side = serializers.CharField(help_text="yours, ours or unknown")
    status = serializers.CharField(help_text="of the rows, or refused")
    reason = serializers.CharField(help_text="of the rows, or the limit that refused")
    calls = serializers.IntegerField()


class ResidenceSerializer(serializers.Serializer[Any]):
    adapter = serializers.CharField()
    state = serializers.CharField(help_text="fetching, loading, probing, eligible, leaving or failed")
    load_epoch = serializers.IntegerField()
    probed_at = serializers.DateTimeField(allow_null=True)


class ReplicaSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(source="replica.name")
    state = serializers.CharField(help_text="well, draining, away, strange, or unknown: nobody looks")
    base = serializers.CharField(source="replica.base", allow_null=True)
    version = serializers.CharField(source="replica.version")
    running = serializers.IntegerField(source="replica.running", help_text="calls of everybody")
    waiting = serializers.IntegerField(source="replica.waiting")
    seen_at = serializers.DateTimeField(source="replica.seen_at", allow_null=True)
    adapters = ResidenceSerializer(source="living", many=True, help_text="the tenant's own")


class TrafficSerializer(serializers.Serializer[Any]):
    span = serializers.CharField()
    since = serializers.DateTimeField(help_text="of the oldest row that was read")
    cut = serializers.BooleanField(help_text="whether the span has more rows than one look reads")
    calls = serializers.IntegerField()
    last_minute = serializers.IntegerField(help_text="booked calls of the last 60 seconds")
    under_way = serializers.IntegerField(allow_null=True, help_text="null: not known")
    latency = TimesSerializer(allow_null=True)
    first = TimesSerializer(allow_null=True)
    bars = BarSerializer(many=True)
    answering = AnsweringSerializer(many=True)
    unanswered = CauseSerializer(many=True)
    replicas = ReplicaSerializer(many=True)


class Span(serializers.Serializer[Any]):
    span = serializers.ChoiceField([*lately.SPANS], default="15m")


class LineSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField(help_text="input, cached or output")
    tokens = serializers.IntegerField()
    price_per_million = Dollars(source="nano_per_mtok")
    cost = serializers.CharField(source="dollars", help_text="dollars, exact, before the sum is rounded")


class CallSerializer(UsageSerializer):
    """A usage row with how its cost came about, its corrections and what was said of the answer."""

    computed = serializers.SerializerMethodField(help_text="tokens times prices, line by line")
    corrections = serializers.SerializerMethodField()
    feedback = serializers.SerializerMethodField()

    def get_computed(self, row: Any) -> list[dict[str, Any]]:
        computed = priced.explain(row)
        return list(LineSerializer(computed.lines if computed else (), many=True).data)

    def get_corrections(self, row: Any) -> list[dict[str, Any]]:
        return list(UsageSerializer(self.context["corrections"], many=True).data)

    def get_feedback(self, row: Any) -> list[dict[str, Any]]:
        return list(FeedbackSerializer(self.context["feedback"], many=True).data)


class Opinions(serializers.Serializer[Any]):
    span = serializers.ChoiceField([*opinions.SPANS], default="30d")


class FiguresSerializer(serializers.Serializer[Any]):
    n = serializers.IntegerField()
    scored = serializers.IntegerField()
    average = serializers.FloatField(allow_null=True)
    up = serializers.IntegerField()
    down = serializers.IntegerField()
    low = serializers.IntegerField(help_text="a score of 1 or 2, or thumbs down")
    scores = serializers.ListField(child=serializers.IntegerField(), help_text="how many of 1, 2, 3, 4, 5")


@endpoint(["GET"], read="usage", answers=TrafficSerializer, query=Span)
def traffic(request: Any) -> Response:
    """What calls did in the last 15 minutes, hour or day (`?span=15m|1h|24h`), counted from ledger rows."""
    found = lately.look(request.tenant, lately.SPANS[valid(Span, request.query_params)["span"]])
    facts = {
        name: getattr(found, name)
        for name in ("since", "cut", "calls", "last_minute", "latency", "first", "bars", "answering")
    }
    facts |= {"span": found.span.name, "unanswered": _unanswered(found)}
    facts |= {"under_way": gauges.under_way(request.tenant), "replicas": standing.of(request.tenant)}
    return Response(TrafficSerializer(facts).data)


def _unanswered(found: lately.Traffic) -> list[dict[str, Any]]:
    rows = [(causes.of_row(*end), *end, n) for end, n in found.ends.items() if end[0] != "settled"]
    rows += [(causes.of_limit(limit), "refused", limit, n) for limit, n in found.refused.items()]
    return [
        {"cause": cause.name, "side": cause.side, "status": state, "reason": reason, "calls": n}
        for cause, state, reason, n in rows
    ]


@endpoint(["GET"], read="usage", lists=UsageSerializer, query=asking.Wanted)
def calls(request: Any) -> Response:
    """Calls that match every filter, newest first. A page may be short, or empty, with a `next`: one request examines
    a bounded number of rows, and `next` goes on from there.
    """
    wanted = search.Filters(**valid(asking.Wanted, request.query_params))
    try:
        found = search.find(request.tenant, wanted, request.query_params.get("cursor", ""), limit_of(request))
    except search.BadCursor as error:
        raise BadCursor from error
    address = found.after and replace_query_param(request.build_absolute_uri(), "cursor", found.after)
    return Response({"next": address or None, "results": UsageSerializer(found.rows, many=True).data})


@endpoint(["GET"], read="usage", answers=CallSerializer)
def call(request: Any, request_id: str) -> Response:
    """One call: its row, how its cost came about, corrections, feedback. Prompts and answers are not kept."""
    row, corrections = pages.of_request(request.tenant, request_id)
    context = {"corrections": corrections, "feedback": pages.opinions_on(request.tenant, request_id)}
    return Response(CallSerializer(row, context=context).data)


@endpoint(["GET"], read="usage", query=asking.Wanted)
def calls_csv(request: Any) -> Any:
    """Every call that matches the filters, as CSV in the columns of the ledger's."""
    wanted = search.Filters(**valid(asking.Wanted, request.query_params))
    pieces = exports.of_rows(search.chunks(request.tenant, wanted))
    return stream(request._request, pieces, f"calls-{request.tenant.slug}.csv")


@endpoint(["GET"], lists=FeedbackSerializer)
def feedback(request: Any) -> Response:
    """What callers thought of answers, newest first."""
    return page(request, Feedback.objects.filter(tenant=request.tenant), FeedbackSerializer, ("-at",))


@endpoint(["GET"], read="usage", answers=FiguresSerializer, query=Opinions)
def feedback_summary(request: Any) -> Response:
    """What feedback of the last day, week or month comes to (`?span=24h|7d|30d`)."""
    span = opinions.SPANS[valid(Opinions, request.query_params)["span"]]
    return Response(FiguresSerializer(asdict(opinions.figures(opinions.since(request.tenant, span)))).data)


@endpoint(["POST"], write="call", answers=FreshKey, creates=True)
def playground_key(request: Any) -> Response:
    """The key of one hour with which the signed-in person calls /v1; the same one while it is good. No key gets one."""
    if request.person is None:
        raise PermissionDenied
    key, text = playground.key(request.tenant, request.person, request.session)
    headers = {"Cache-Control": "no-store"}
    return Response(KeySerializer(key).data | {"key": text}, status=status.HTTP_201_CREATED, headers=headers)
