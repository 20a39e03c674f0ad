"""The back-test page: a proposal as a form, its replay beside it. The address holds the proposal, so it can be sent."""

from __future__ import annotations

from typing import Any

from django import forms as django_forms
from django.http import HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext_lazy as _

from tenants import access, costs, forms, metering
from tenants.costs import backtest as replay
from tenants.models import Quota, Tenant
from tenants.refusals.wording import LIMITS

MOST_ROWS = 100_000  # a page answers within seconds; the command reads more
MOST_PRICE, MOST_BUDGET = 10_000, 9_000_000  # dollars: a million tokens, a month


class ProposalForm(forms.Limits):
    """Limits, a budget and prices to replay; what is left empty is not proposed."""

    days = forms.Whole(label=_("Days back"), min_value=1, max_value=replay.MOST_DAYS)
    key = django_forms.ChoiceField(label=_("Limits are for"), required=False)
    budget = forms.Dollars(label=_("Dollars a calendar month"), min_value=0, max_value=MOST_BUDGET, required=False)
    input_price = forms.Dollars(label=_("Input"), min_value=0, max_value=MOST_PRICE, required=False)
    output_price = forms.Dollars(label=_("Output"), min_value=0, max_value=MOST_PRICE, required=False)

    def __init__(self, *args: Any, keys: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choice: Any = self.fields["key"]
        choice.choices = [("", _("the whole tenant")), *keys]
        choice.widget.attrs["class"] = "in"

    def proposal(self) -> replay.Proposal:
        told = self.cleaned_data
        return replay.Proposal(
            limits=tuple(told[name] for name in metering.LIMITS),
            key=told["key"],
            budget_nano=told["budget"],
            input_nano_per_mtok=told["input_price"],
            output_nano_per_mtok=told["output_price"],
        )


def backtest(request: access.Request) -> HttpResponse:
    """The form with the limits in force; with a proposal in the address, what it would have done."""
    tenant: Tenant = request.tenant
    keys = [(key.pk, f"{key.name} · {key.pk}") for key in tenant.api_keys.all()]
    asked = "days" in request.GET
    quota = Quota.objects.filter(tenant=tenant, key=None).first()
    start = {"days": 7, "budget": forms.amount(costs.budget(tenant))}
    form = ProposalForm(request.GET if asked else None, keys=keys, quota=quota, initial=start)
    result = None
    if asked and form.is_valid():
        try:
            result = replay.run(tenant, form.proposal(), form.cleaned_data["days"], MOST_ROWS)
        except replay.BadProposal as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
    context = {
        "form": form,
        "yyyymm": costs.this_month(tenant),
        "result": result,
        "by_limit": [(scope, LIMITS[limit], n) for (scope, limit), n in result.refused.most_common()] if result else [],
        "days": sorted(result.by_day.items()) if result else [],
        "reached": [(costs.bounds(month)[0], at) for month, at in result.reached.items()] if result else [],
        "caveats": replay.CAVEATS,
        "most_rows": MOST_ROWS,
    }
    return render(request, "tenants/backtest.html", context, status=422 if asked and form.errors else 200)
