"""REST of the price book: all read it, the operator writes it. Amounts are dollars per million tokens, as text."""

from __future__ import annotations

from typing import Any

from django.db.models import Q
from django.shortcuts import get_object_or_404
from rest_framework import serializers, status
from rest_framework.response import Response

from tenants import prices
from tenants.models import Price, Tenant
from tenants.rest import Dollars, endpoint, operate, page, valid


class PriceSerializer(serializers.ModelSerializer[Price]):
    """Cached input without a price of its own costs what input costs."""

    input = Dollars(source="input_nano_per_mtok")
    output = Dollars(source="output_nano_per_mtok")
    cached = Dollars(source="cached_nano_per_mtok")
    batch_input = Dollars(source="batch_input_nano_per_mtok")
    batch_output = Dollars(source="batch_output_nano_per_mtok")

    class Meta:
        model = Price
        fields = [
            "id",
            "model",
            "kind",
            "input",
            "output",
            "cached",
            "batch_input",
            "batch_output",
            "valid_from",
            "valid_until",
            "historical",
            "basis",
        ]


class PriceChange(serializers.Serializer[Any]):
    input = Dollars(source="input_nano_per_mtok", required=False)
    output = Dollars(source="output_nano_per_mtok", required=False)
    cached = Dollars(source="cached_nano_per_mtok", required=False, allow_null=True)
    batch_input = Dollars(source="batch_input_nano_per_mtok", required=False, allow_null=True)
    batch_output = Dollars(source="batch_output_nano_per_mtok", required=False, allow_null=True)
    valid_from = serializers.DateTimeField(required=False, help_text="default: now")
    valid_until = serializers.DateTimeField(required=False, allow_null=True)
    historical = serializers.BooleanField(required=False)


class NewPrice(PriceChange):
    model = serializers.CharField(max_length=120, help_text="a base model, `adapter`, or one adapter: slug/name-vN")
    kind = serializers.ChoiceField(choices=["list", "reference"], default="list")
    input = Dollars(source="input_nano_per_mtok")
    output = Dollars(source="output_nano_per_mtok")


class GpuPrice(serializers.Serializer[Any]):
    """What a GPU's hour and its measured throughput make a model cost."""

    model = serializers.CharField(max_length=120)
    dollars_per_hour = serializers.CharField(max_length=24)
    input_tokens_per_second = serializers.CharField(max_length=24)
    output_tokens_per_second = serializers.CharField(max_length=24)
    utilisation = serializers.CharField(max_length=24, default="1", help_text="share of the hour, up to 1")
    valid_from = serializers.DateTimeField(required=False)


class OfModel(serializers.Serializer[Any]):
    model = serializers.CharField(max_length=120, required=False)


class Ending(serializers.Serializer[Any]):
    at = serializers.DateTimeField(required=False, help_text="default: now")


def visible(tenant: Tenant) -> Any:
    """All but the prices of other tenants' adapters, whose names are nobody else's to read."""
    return Price.objects.filter(~Q(model__contains="/") | Q(model__startswith=f"{tenant.slug}/"))


@endpoint(
    ["GET", "POST"],
    read="usage",
    write="own",
    takes={"POST": NewPrice},
    lists=PriceSerializer,
    answers=PriceSerializer,
    query=OfModel,
    creates=True,
)
def price_list(request: Any) -> Response:
    """GET lists versions by model, newest first; `?model=` leaves one. POST sets a new version (operator)."""
    if request.method != "POST":
        rows, model = visible(request.tenant), request.query_params.get("model")
        return page(request, rows.filter(model=model) if model else rows, PriceSerializer, ("model", "-valid_from"))
    operate(request)
    wanted = valid(NewPrice, request.data)
    made = prices.set_(wanted.pop("model"), request.person, **wanted)
    return Response(PriceSerializer(made).data, status=status.HTTP_201_CREATED)


@endpoint(["POST"], write="own", takes={"POST": GpuPrice}, answers=PriceSerializer, creates=True)
def gpu_price(request: Any) -> Response:
    """Sets a version at which a GPU pays for itself, with what it was reckoned from (operator)."""
    operate(request)
    wanted = valid(GpuPrice, request.data)
    model, since = wanted.pop("model"), wanted.pop("valid_from", None)
    made = prices.set_(model, request.person, valid_from=since, **prices.from_gpu(**wanted))
    return Response(PriceSerializer(made).data, status=status.HTTP_201_CREATED)


@endpoint(["GET", "PATCH", "DELETE"], read="usage", write="own", takes={"PATCH": PriceChange}, answers=PriceSerializer)
def price(request: Any, pk: int) -> Response:
    """One version. PATCH and DELETE (operator) only while no call can have been billed by it."""
    found = get_object_or_404(visible(request.tenant), pk=pk)
    if request.method in {"PATCH", "DELETE"}:
        operate(request)
    if request.method == "DELETE":
        prices.delete(found, request.person)
        return Response(status=status.HTTP_204_NO_CONTENT)
    if request.method == "PATCH":
        found = prices.change(found, request.person, **valid(PriceChange, request.data))
    return Response(PriceSerializer(found).data)


@endpoint(["POST"], write="own", takes={"POST": Ending}, answers=PriceSerializer)
def price_end(request: Any, pk: int) -> Response:
    """Ends a version at an instant that is not in the past (operator)."""
    operate(request)
    found = get_object_or_404(visible(request.tenant), pk=pk)
    ended = prices.end(found, request.person, valid(Ending, request.data).get("at"))
    return Response(PriceSerializer(ended).data)
