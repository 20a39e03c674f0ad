"""The page of a tenant's limits and budget: what is used of them now and, for its owner, how they change."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from tenants import access, forms, gauges
from tenants import limits as limiting
from tenants.models import Budget, Quota, Tenant
from tenants.problems import Refused


def limits(request: access.Request) -> HttpResponse:
    if request.htmx:
        return render(request, "tenants/_levels.html", levels(request.tenant))
    quota = Quota.objects.filter(tenant=request.tenant, key=None).first()
    return _page(request, forms.Limits(quota=quota), _budget_form(request.tenant))


def levels(tenant: Tenant) -> dict[str, Any]:
    """What the live part of the page needs."""
    return {
        "reading": gauges.read(tenant),
        "refused": gauges.refused(tenant),
        "poll": reverse("limits", args=[tenant.slug]),
    }


def _budget_form(tenant: Tenant) -> forms.MonthlyBudget:
    nano = Budget.objects.filter(tenant=tenant).values_list("monthly_nano", flat=True).first()
    return forms.MonthlyBudget(initial={} if nano is None else {"dollars": forms.amount(nano)})


def _page(request: access.Request, quota: forms.Limits, budget: forms.MonthlyBudget, status: int = 200) -> HttpResponse:
    context = levels(request.tenant) | {"form": quota, "budget_form": budget}
    return render(request, "tenants/limits.html", context, status=status)


@require_POST
@access.requires("own")
def quota_set(request: access.Request) -> HttpResponse:
    form = forms.Limits(request.POST)
    if form.is_valid():
        try:
            limiting.set_quota(request.tenant, request.user, key=None, **form.limits())
            messages.success(request, _("The limits hold from the next call on."))
            return redirect("limits", request.tenant.slug)
        except Refused as error:
            forms.explain(form, error)
    return _page(request, form, _budget_form(request.tenant), status=422)


@require_POST
@access.requires("own")
def budget_set(request: access.Request) -> HttpResponse:
    form = forms.MonthlyBudget(request.POST)
    if form.is_valid():
        try:
            limiting.set_budget(request.tenant, form.cleaned_data["dollars"], request.user)
            messages.success(request, _("The budget holds from the next call on."))
            return redirect("limits", request.tenant.slug)
        except Refused as error:
            forms.explain(form, error, otherwise="dollars")
    quota = Quota.objects.filter(tenant=request.tenant, key=None).first()
    return _page(request, forms.Limits(quota=quota), form, status=422)
