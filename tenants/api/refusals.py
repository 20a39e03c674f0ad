"""REST of refused calls: how many, and why one of them was. Amounts are decimals in texts, each with its unit."""

from __future__ import annotations

from typing import Any

from django.http import Http404
from rest_framework import serializers
from rest_framework.response import Response

from tenants import decisions, money, refusals
from tenants.models import RefusalCount
from tenants.rest import Dollars, endpoint, page, valid

NEWEST = ("-minute", "-id")
UNITS = {"budget": "usd", "wait": "us", "concurrent_calls": "calls", "max_tokens": "tokens", "allowed_models": ""}


class RefusalCountSerializer(serializers.ModelSerializer[RefusalCount]):
    """Calls that limits of this name, the key's or the tenant's, refused in one minute."""

    key = serializers.CharField(source="key_id")

    class Meta:
        model = RefusalCount
        fields = ["minute", "key", "limit", "count"]


class Wanted(serializers.Serializer[Any]):
    key = serializers.CharField(max_length=16, required=False)


class StepSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField(help_text="ok, bad, or empty for what it came to")
    text = serializers.CharField()
    now = serializers.CharField(help_text="what holds today, or empty")


class MoveSerializer(serializers.Serializer[Any]):
    text = serializers.CharField()
    name = serializers.CharField(help_text="a limit, budget, max_tokens, tokens, allowed_models or wait")
    scope = serializers.CharField(help_text="tenant, key or empty")
    unit = serializers.CharField(help_text="requests, tokens, calls, usd, us (microseconds) or empty")
    before = serializers.CharField(allow_null=True)
    after = serializers.CharField(allow_null=True)


class ChangeSerializer(serializers.Serializer[Any]):
    """With all of `moves` together the same call would have passed at the same instant; one unit less is too little."""

    kind = serializers.CharField(help_text="wait, lower, raise or allow")
    moves = MoveSerializer(many=True)


class ExplanationSerializer(serializers.Serializer[Any]):
    decision = serializers.CharField()
    at = serializers.DateTimeField()
    status = serializers.IntegerField()
    code = serializers.CharField()
    title = serializers.CharField()
    key = serializers.CharField()
    key_name = serializers.CharField()
    model = serializers.CharField()
    tokens = serializers.IntegerField(help_text="input and answer together, at most")
    cost = Dollars(help_text="dollars, at most")
    steps = StepSerializer(many=True)
    changes = ChangeSerializer(many=True)


@endpoint(["GET"], read="usage", lists=RefusalCountSerializer, query=Wanted)
def refusal_list(request: Any) -> Response:
    """Refused calls by minute, key and limit, newest first; `?key=` leaves only one key's."""
    wanted = valid(Wanted, request.query_params)
    rows = RefusalCount.objects.filter(tenant=request.tenant)
    if "key" in wanted:
        rows = rows.filter(key_id=wanted["key"])
    return page(request, rows, RefusalCountSerializer, NEWEST)


@endpoint(["GET"], read="usage", answers=ExplanationSerializer)
def refusal(request: Any, decision: str) -> Response:
    """Why a call was refused, and the smallest changes that would have admitted it."""
    try:
        found = refusals.explain(request.tenant, decision)
    except decisions.NotADecision as error:
        raise Http404 from error
    d = found.decision
    facts = {"decision": found.text, "at": found.at, "status": found.status, "code": d.code, "title": found.title}
    facts |= {"key": d.key, "key_name": found.key, "model": d.model, "tokens": d.tokens, "cost": d.hold_nano}
    changes = [{"kind": each.kind, "moves": [_move(move) for move in each.moves]} for each in found.changes]
    return Response(ExplanationSerializer(facts | {"steps": found.steps, "changes": changes}).data)


def _move(move: refusals.Move) -> dict[str, str | None]:
    said = money.dollars if move.name == "budget" else str
    before, after = (None if value is None else said(value) for value in (move.before, move.after))
    unit = UNITS.get(move.name, move.name.partition("_")[0])
    return {"text": move.text, "name": move.name, "scope": move.scope, "unit": unit, "before": before, "after": after}
