"""REST of what serves: adapters, aliases, rollouts."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from rest_framework import serializers, status
from rest_framework.response import Response

from inference import aliases as naming
from inference import extras, registry, rollouts
from inference.models import Adapter, Alias, Residence, Rollout, RolloutEvent
from tenants.rest import endpoint, operate, page, valid

FALLBACK = ("fallback_base", "fallback_adapter")


class ResidenceSerializer(serializers.ModelSerializer[Residence]):
    replica = serializers.CharField(source="replica.name")

    class Meta:
        model = Residence
        fields = ["replica", "state", "load_epoch", "why", "note", "changed_at", "probed_at"]


class AdapterSerializer(serializers.ModelSerializer[Adapter]):
    model = serializers.CharField(source="__str__", help_text="the name that a call may ask for")
    base = serializers.CharField(source="base.name")
    residences = ResidenceSerializer(many=True, read_only=True, help_text="how far it is on each engine")

    class Meta:
        model = Adapter
        fields = ["id", "model", "name", "version", "base", "digest", "state", "residences", "metrics", "created_at"]


class AliasSerializer(serializers.ModelSerializer[Alias]):
    base = serializers.CharField(source="base.name")
    champion = serializers.StringRelatedField[Adapter]()
    challenger = serializers.StringRelatedField[Adapter]()
    fallback = serializers.StringRelatedField[Any](help_text="answers where no engine does: a base model or an adapter")

    class Meta:
        model = Alias
        fields = ["name", "base", "champion", "challenger", "challenger_bp", "fallback"]


class Fallback(serializers.Serializer[Any]):
    fallback = serializers.CharField(max_length=120, allow_null=True, help_text="a base model, an adapter, or null")


class RolloutEventSerializer(serializers.ModelSerializer[RolloutEvent]):
    actor = serializers.StringRelatedField[Any]()

    class Meta:
        model = RolloutEvent
        fields = ["at", "actor", "state", "weight_bp", "note"]


class RolloutSerializer(serializers.ModelSerializer[Rollout]):
    alias = serializers.CharField(source="alias.name")
    adapter = serializers.StringRelatedField[Adapter]()
    events = RolloutEventSerializer(many=True, read_only=True)

    class Meta:
        model = Rollout
        fields = ["id", "alias", "adapter", "state", "weight_bp", "created_at", "ended_at", "events"]


class NewRollout(serializers.Serializer[Any]):
    alias = serializers.SlugField()
    adapter = serializers.UUIDField()
    weight_bp = serializers.IntegerField(default=1_000, help_text="share of the challenger in 1/10,000")


class Weight(serializers.Serializer[Any]):
    weight_bp = serializers.IntegerField()


class EngineFields(serializers.Serializer[Any]):
    fields = serializers.ListField(  # type: ignore[assignment]  # the word of the API
        child=serializers.CharField(max_length=80), max_length=100, help_text="names of vLLM's own request fields"
    )


@endpoint(["GET", "PUT"], takes={"PUT": EngineFields}, answers=EngineFields)
def engine_fields(request: Any) -> Response:
    """The engine's own fields that calls of this tenant may have; the operator PUTs which."""
    if request.method == "PUT":
        operate(request)
        extras.open_(request.tenant, valid(EngineFields, request.data)["fields"], request.person)
    return Response({"fields": request.tenant.engine_extras})


@endpoint(["GET"], lists=AdapterSerializer)
def adapters(request: Any) -> Response:
    """Adapters, newest first."""
    return page(
        request,
        request.tenant.adapters.select_related("base").prefetch_related("residences__replica"),
        AdapterSerializer,
    )


@endpoint(["GET"])
def adapter(request: Any, adapter_id: str) -> Response:
    """One adapter with its signed envelope."""
    found = get_object_or_404(Adapter, tenant=request.tenant, pk=adapter_id)
    return Response(AdapterSerializer(found).data | {"envelope": found.statement.envelope})


@endpoint(["GET"])
def verify(request: Any, adapter_id: str) -> Response:
    """Checks the adapter's files against its signature now; answers its statement, or 422 with the reason."""
    found = get_object_or_404(Adapter, tenant=request.tenant, pk=adapter_id)
    return Response({"verified": True, "statement": registry.verify(found)})


@endpoint(["POST", "DELETE"], answers=AdapterSerializer)
def loaded(request: Any, adapter_id: str) -> Response:
    """POST verifies the adapter and has every engine of its base model load it, DELETE unloads it; see `residences`."""
    found = get_object_or_404(Adapter, tenant=request.tenant, pk=adapter_id)
    verb = registry.load if request.method == "POST" else registry.unload
    return Response(AdapterSerializer(verb(found, request.person)).data)


@endpoint(["GET"], lists=AliasSerializer)
def aliases(request: Any) -> Response:
    """The tenant's stable model names and where they route."""
    rows = request.tenant.aliases.select_related("base", "champion", "challenger", *FALLBACK)
    return page(request, rows, AliasSerializer)


@endpoint(["GET", "PATCH"], takes={"PATCH": Fallback}, answers=AliasSerializer)
def alias(request: Any, name: str) -> Response:
    """One model name; PATCH `fallback` says what answers where no engine does, null for nothing."""
    found = get_object_or_404(request.tenant.aliases.select_related("base", *FALLBACK), name=name)
    if request.method == "PATCH":
        wanted = valid(Fallback, request.data)["fallback"]
        target = None if wanted is None else naming.target(request.tenant, wanted)
        found = naming.set_fallback(found, target, request.person)
    return Response(AliasSerializer(found).data)


@endpoint(["GET", "POST"], takes={"POST": NewRollout}, lists=RolloutSerializer, creates=True)
def rollout_list(request: Any) -> Response:
    """List rollouts, or start a canary of an adapter behind an alias."""
    if request.method == "GET":
        rows = Rollout.objects.filter(alias__tenant=request.tenant).select_related("alias", "adapter")
        return page(request, rows.prefetch_related("events__actor"), RolloutSerializer)
    wanted = NewRollout(data=request.data)
    wanted.is_valid(raise_exception=True)
    alias = get_object_or_404(Alias, tenant=request.tenant, name=wanted.validated_data["alias"])
    candidate = get_object_or_404(Adapter, tenant=request.tenant, pk=wanted.validated_data["adapter"])
    started = rollouts.start(alias, candidate, request.person, wanted.validated_data["weight_bp"])
    return Response(RolloutSerializer(started).data, status=status.HTTP_201_CREATED)


@endpoint(["GET", "PATCH"], takes={"PATCH": Weight}, answers=RolloutSerializer)
def rollout(request: Any, rollout_id: str) -> Response:
    """One rollout; PATCH `weight_bp` changes the challenger's share."""
    found = get_object_or_404(Rollout, alias__tenant=request.tenant, pk=rollout_id)
    if request.method == "PATCH":
        wanted = Weight(data=request.data)
        wanted.is_valid(raise_exception=True)
        found = rollouts.set_weight(found, request.person, wanted.validated_data["weight_bp"])
    return Response(RolloutSerializer(found).data)


@endpoint(["POST"], answers=RolloutSerializer)
def stop(request: Any, rollout_id: str) -> Response:
    """Roll back: the champion answers every call from the next one on."""
    found = get_object_or_404(Rollout, alias__tenant=request.tenant, pk=rollout_id)
    return Response(RolloutSerializer(rollouts.stop(found, request.person)).data)


@endpoint(["POST"], answers=RolloutSerializer)
def promote(request: Any, rollout_id: str) -> Response:
    """Promote: the candidate becomes the champion."""
    found = get_object_or_404(Rollout, alias__tenant=request.tenant, pk=rollout_id)
    return Response(RolloutSerializer(rollouts.promote(found, request.person)).data)
