"""REST of what calls cost: sums, statements, files, back-tests. Money is exact decimals of dollars, in texts."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from rest_framework import serializers
from rest_framework.response import Response

from tenants import costs, metering
from tenants.costs import backtest, exports, savings, statements
from tenants.costs.forecasts import Forecast
from tenants.models import NANO, Quota, Tenant
from tenants.rest import endpoint
from tenants.views.take import stream

BY = ("day", "model", "adapter", "key", "end_user", "price")
MOST_ROWS = 100_000  # of a back-test by REST; the command reads more


@endpoint(["GET"], read="usage")
def summary(request: Any) -> Response:
    """A month's sums: `?month=YYYYMM` (default: this one), `?by=day|model|adapter|key|end_user|price`."""
    tenant: Tenant = request.tenant
    month, by = _month(request), request.query_params.get("by", "model")
    if by not in BY:
        raise serializers.ValidationError({"by": [_("Choose one of: %(names)s.") % {"names": ", ".join(BY)}]})
    figures = costs.month(tenant, month)
    current = month == costs.this_month(tenant)
    saving = savings.default(savings.references())
    return Response(
        {
            "month": month,
            "time_zone": tenant.time_zone,
            "currency": statements.CURRENCY,
            "budget": costs.dollars(figures.pop("budget")),
            "totals": _plain(figures),
            "by": by,
            "rows": [_plain(row) for row in getattr(costs, f"by_{by}")(tenant, month)],
            "forecast": _forecast(costs.forecast(tenant)) if current else None,
            "saving": _saving(savings.of(figures, saving)) if saving else None,
        }
    )


@endpoint(["GET"], read="usage")
def statement_list(request: Any) -> Response:
    """The months that have a statement, newest first, with their totals."""
    months = costs.months(request.tenant, most=120)
    return Response([{"month": month, **_plain(row)} for month, row in months.items()])


@endpoint(["GET"], read="usage")
def statement(request: Any, month: str) -> Response:
    """The statement of a month, `YYYYMM`."""
    return Response(statements.of(request.tenant, month).plain())


@endpoint(["GET"], read="usage")
def usage_csv(request: Any) -> Any:
    """The ledger's rows of a month (`?month=`, `?key=`) as CSV."""
    first, next_ = costs.bounds(_month(request))
    pieces = exports.usage(request.tenant, first, next_, request.query_params.get("key", "")[:16])
    return stream(request._request, pieces, f"usage-{request.tenant.slug}-{first:%Y%m}.csv")


@endpoint(["GET"], read="usage")
def usage_focus(request: Any) -> Any:
    """A month (`?month=`) in the columns of FOCUS 1.2, a line for each day, key, model and price."""
    first, next_ = costs.bounds(_month(request))
    return stream(
        request._request, exports.focus(request.tenant, first, next_), f"focus-{request.tenant.slug}-{first:%Y%m}.csv"
    )


class ProposalSerializer(serializers.Serializer[Any]):
    """Limits, a budget and prices to replay; without any the limits in force. Money: dollars."""

    days = serializers.IntegerField(default=7, min_value=1, max_value=backtest.MOST_DAYS)
    key = serializers.CharField(default="", max_length=16)
    model = serializers.CharField(default="", max_length=120)
    requests_per_second = serializers.IntegerField(default=None, min_value=0, max_value=Quota.MOST_PER_SECOND)
    requests_per_minute = serializers.IntegerField(default=None, min_value=0, max_value=Quota.MOST_PER_MINUTE)
    tokens_per_second = serializers.IntegerField(default=None, min_value=0, max_value=Quota.MOST_PER_SECOND)
    tokens_per_minute = serializers.IntegerField(default=None, min_value=0, max_value=Quota.MOST_PER_MINUTE)
    concurrent_calls = serializers.IntegerField(default=None, min_value=0, max_value=Quota.MOST_OPEN)
    budget = serializers.DecimalField(16, 9, default=None, min_value=0, max_value=9_000_000)
    input_price = serializers.DecimalField(16, 9, default=None, min_value=0, max_value=10_000)
    output_price = serializers.DecimalField(16, 9, default=None, min_value=0, max_value=10_000)
    cached_price = serializers.DecimalField(16, 9, default=None, min_value=0, max_value=10_000)


@endpoint(["GET"], read="usage")
def backtest_(request: Any) -> Response:
    """What a proposal would have done to the last `?days=`; without one, the limits and the budget in force."""
    asked = ProposalSerializer(data=request.query_params.dict())
    asked.is_valid(raise_exception=True)
    told = asked.validated_data
    proposal = backtest.Proposal(
        limits=tuple(told[name] for name in metering.LIMITS),
        key=told["key"],
        budget_nano=_nano(told["budget"]),
        input_nano_per_mtok=_nano(told["input_price"]),
        output_nano_per_mtok=_nano(told["output_price"]),
        cached_nano_per_mtok=_nano(told["cached_price"]),
        model=told["model"],
    )
    if proposal == backtest.Proposal():
        proposal = backtest.in_force(request.tenant)
    return Response(backtest.run(request.tenant, proposal, told["days"], MOST_ROWS).plain())


def _month(request: Any) -> str:
    month = request.query_params.get("month") or costs.this_month(request.tenant)
    costs.bounds(month)
    return str(month)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row of sums with its money as decimals."""
    moneys = {"spent": "cost", "corrected": "booked_late"}
    return {moneys.get(name, name): costs.dollars(value) if name in moneys else value for name, value in row.items()}


def _forecast(forecast: Forecast | None) -> dict[str, Any] | None:
    if forecast is None:
        return None
    low, expected, high = (costs.dollars(getattr(forecast.end, name)) for name in ("low", "expected", "high"))
    return {"low": low, "expected": expected, "high": high, "level": 80, "days_seen": forecast.seen}


def _saving(saving: savings.Saving) -> dict[str, Any]:
    price = saving.price
    return {
        "reference": price.model,
        "historical": price.historical,
        "input_price": costs.dollars(price.input_nano_per_mtok),
        "output_price": costs.dollars(price.output_nano_per_mtok),
        "api_cost": costs.dollars(saving.api),
        "paid": costs.dollars(saving.paid),
        "saved": costs.dollars(saving.saved),
        "share": saving.share,
    }


def _nano(amount: Any) -> int | None:
    return None if amount is None else int(amount * NANO)
