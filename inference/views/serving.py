"""Pages of what serves: adapters with their evidence, rollouts, the guardrail policy."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db import IntegrityError, transaction
from django.db.models import Avg, Count, Q, QuerySet, Sum
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from attestation import verdicts
from attestation.signing import VerificationError
from inference import aliases, forms, policies, registry
from inference import rollouts as rolling
from inference.engines import client
from inference.guardrails.policy import DEFAULT, PolicyError
from inference.models import Adapter, Alias, BaseModel, GuardrailPolicy, Residence, Rollout
from tenants import access
from tenants.models import Tenant

PAGE = 25


@contextmanager
def explained(request: access.Request) -> Iterator[None]:
    """What a person can put right becomes a message on the next page; nothing was changed then."""
    try:
        yield
    except VerificationError as error:
        messages.error(request, verdicts.refusal(error))
    except client.EngineError as error:
        messages.error(request, _("The engine did not do it: %(reason)s") % {"reason": error})
    except registry.AdapterInUse as error:
        words = {"adapter": error.adapter, "aliases": ", ".join(error.aliases)}
        messages.error(request, _("%(adapter)s answers for %(aliases)s. Route that name elsewhere first.") % words)
    except rolling.AlreadyRunning as error:
        words = {"alias": error.alias}
        messages.error(request, _("A rollout is running on %(alias)s. Promote it or roll it back first.") % words)
    except rolling.NotRunning:
        messages.error(request, _("The rollout has ended; somebody was quicker."))
    except aliases.NotServable as error:
        words = {"adapter": error.adapter}
        sentence = _("%(adapter)s cannot answer for this name: it must be loaded, and made for the same base model.")
        messages.error(request, sentence % words)


def adapters(request: access.Request) -> HttpResponse:
    rows = Adapter.objects.filter(tenant=request.tenant).select_related("base", "statement__key")
    if request.GET.get("state") in Adapter.State.values:
        rows = rows.filter(state=request.GET["state"])
    if words := request.GET.get("q", "").strip():
        rows = rows.filter(Q(name__icontains=words) | Q(digest__startswith=words.lower()))
    context = {
        "page": Paginator(rows, PAGE).get_page(request.GET.get("page")),
        "states": Adapter.State.choices,
        "roles": _roles(request.tenant),
    }
    return render(request, "inference/adapters.html", context)


def _roles(tenant: Tenant) -> dict[Any, list[tuple[str, str, int]]]:
    """Which adapter answers for which name: adapter id -> [(role, alias, weight)]."""
    found: dict[Any, list[tuple[str, str, int]]] = {}
    for alias in Alias.objects.filter(tenant=tenant):
        if alias.champion_id:
            found.setdefault(alias.champion_id, []).append(("champion", alias.name, 10_000 - alias.challenger_bp))
        if alias.challenger_id:
            found.setdefault(alias.challenger_id, []).append(("challenger", alias.name, alias.challenger_bp))
    return found


def adapter(request: access.Request, pk: str) -> HttpResponse:
    template = "inference/_residences.html" if request.htmx else "inference/adapter.html"
    return render(request, template, _adapter(request, pk))


def _adapter(request: access.Request, pk: str) -> dict[str, Any]:
    rows = Adapter.objects.select_related("base", "statement__key", "tenant")
    found = get_object_or_404(rows, tenant=request.tenant, pk=pk)
    payload = json.loads(b64decode(found.statement.envelope["payload"]))
    residences = list(found.residences.select_related("replica"))
    still = {Residence.State.ELIGIBLE, Residence.State.FAILED}
    wanted = found.state == Adapter.State.LOADED
    return {
        "residences": residences,
        "moving": any(one.state not in still for one in residences) or (wanted and not residences),
        "adapter": found,
        "predicate": payload["predicate"],
        "files": payload["predicate"].get("files", []),
        "roles": _roles(request.tenant).get(found.pk, []),
        "rollouts": found.rollouts.select_related("alias")[:10],
        "aliases": Alias.objects.filter(tenant=request.tenant, base=found.base).exclude(rollouts__state="running"),
        "shares": forms.SHARES,
    }


@require_POST
def adapter_verify(request: access.Request, pk: str) -> HttpResponse:
    """Verifies the files as they are now, and says what was established or what is wrong."""
    context = _adapter(request, pk)
    try:
        context |= {"verified": True, "verdict": verdicts.approval(registry.verify(context["adapter"]))}
    except VerificationError as error:
        context |= {"verified": False, "verdict": verdicts.refusal(error)}
    template = "inference/_verdict.html" if request.htmx else "inference/adapter.html"
    return render(request, template, context)


@require_POST
@access.requires("engineer")
def adapter_load(request: access.Request, pk: str) -> HttpResponse:
    found = get_object_or_404(Adapter.objects.select_related("tenant"), tenant=request.tenant, pk=pk)
    with explained(request):
        registry.load(found, request.user)
        messages.success(request, _("%(adapter)s was verified. The engines load it now.") % {"adapter": found})
    return redirect("adapter", request.tenant.slug, pk)


@require_POST
@access.requires("engineer")
def adapter_unload(request: access.Request, pk: str) -> HttpResponse:
    found = get_object_or_404(Adapter.objects.select_related("tenant"), tenant=request.tenant, pk=pk)
    with explained(request):
        registry.unload(found, request.user)
        words = _("%(adapter)s gets no more calls. The engines unload it once it has none.")
        messages.success(request, words % {"adapter": found})
    return redirect("adapter", request.tenant.slug, pk)


def adapter_statement(request: access.Request, pk: str) -> HttpResponse:
    """The DSSE envelope, for checking elsewhere: it lies beside the adapter's files as attestation.json."""
    found = get_object_or_404(Adapter.objects.select_related("statement"), tenant=request.tenant, pk=pk)
    name = f"{found}.attestation.json"
    return JsonResponse(found.statement.envelope, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def rollouts(request: access.Request) -> HttpResponse:
    return render(request, "inference/rollouts.html", _rollouts(request) | {"form": forms.NewAlias()})


def _rollouts(request: access.Request) -> dict[str, Any]:
    tenant: Tenant = request.tenant
    rows = Rollout.objects.filter(alias__tenant=tenant).select_related("alias", "adapter")
    start = forms.StartRollout(tenant=tenant)
    return {
        "page": Paginator(rows, PAGE).get_page(request.GET.get("page")),
        "aliases": Alias.objects.filter(tenant=tenant).select_related(
            "base", "champion", "challenger", "fallback_base", "fallback_adapter"
        ),
        "start": start,
        "fallback": forms.Fallback(tenant=tenant),
        "startable": Adapter.objects.filter(tenant=tenant, state=Adapter.State.LOADED).exists(),
        "bases": BaseModel.objects.count(),
        "shares": forms.SHARES,
    }


@require_POST
@access.requires("engineer")
def alias_create(request: access.Request) -> HttpResponse:
    form = forms.NewAlias(request.POST)
    if form.is_valid():
        try:
            with transaction.atomic():
                aliases.create(request.tenant, form.cleaned_data["name"], form.cleaned_data["base"], request.user)
            return redirect("rollouts", request.tenant.slug)
        except IntegrityError:
            form.add_error("name", _("This name is taken."))
    return render(request, "inference/rollouts.html", _rollouts(request) | {"form": form}, status=422)


@require_POST
@access.requires("engineer")
def alias_fallback(request: access.Request) -> HttpResponse:
    form = forms.Fallback(request.POST, tenant=request.tenant)
    if not form.is_valid():
        messages.error(request, _("Choose a model name, and a base model or a loaded adapter."))
        return redirect("rollouts", request.tenant.slug)
    wanted = form.cleaned_data["target"]
    with explained(request):
        target = aliases.target(request.tenant, wanted) if wanted else None
        aliases.set_fallback(form.cleaned_data["alias"], target, request.user)
        messages.success(request, _("It holds from the next call on."))
    return redirect("rollouts", request.tenant.slug)


@require_POST
@access.requires("engineer")
def rollout_start(request: access.Request) -> HttpResponse:
    form = forms.StartRollout(request.POST, tenant=request.tenant)
    if not form.is_valid():
        messages.error(request, _("Choose a model name, a loaded adapter and a share."))
        return redirect("rollouts", request.tenant.slug)
    asked = form.cleaned_data
    with explained(request):
        started = rolling.start(asked["alias"], asked["adapter"], request.user, asked["weight"])
        return redirect("rollout", request.tenant.slug, started.pk)
    return redirect("rollouts", request.tenant.slug)


def rollout(request: access.Request, pk: str) -> HttpResponse:
    found = _rollout(request, pk)
    calls = _arms(found)
    context = {
        "rollout": found,
        "arms": calls,
        "total": sum(arm["n"] for arm in calls),
        "events": found.events.select_related("actor").order_by("-at"),
        "shares": [share for share in forms.SHARES if share != found.weight_bp],
        "running": found.state == Rollout.State.RUNNING,
        "next_share": next((share for share in forms.SHARES if share > found.weight_bp), forms.SHARES[-1]),
    }
    if not request.htmx:
        return render(request, "inference/rollout.html", context)
    return render(request, "inference/_arms.html", context, status=200 if context["running"] else 286)


def _rollout(request: access.Request, pk: str) -> Rollout:
    rows: QuerySet[Rollout] = Rollout.objects.select_related(
        "alias__champion", "alias__base", "alias__tenant", "adapter"
    )
    return get_object_or_404(rows, alias__tenant=request.tenant, pk=pk)


def _arms(rollout: Rollout) -> list[dict[str, Any]]:
    """Ledger rows of the alias while the rollout ran, by arm: calls, failures, tokens, latency, cost."""
    rows = rollout.alias.tenant.usage.filter(model=rollout.alias.name, occurred_at__gte=rollout.created_at)
    if rollout.ended_at:
        rows = rows.filter(occurred_at__lte=rollout.ended_at)
    counted = (
        rows.exclude(arm="")
        .order_by()
        .values("arm")
        .annotate(
            n=Count("pk"),
            failed=Count("pk", filter=Q(status__in=["aborted", "estimated"])),
            blocked=Count("pk", filter=Q(status="blocked")),
            latency=Avg("latency_ms", filter=Q(status="settled")),
            output=Avg("output_tokens", filter=Q(status="settled")),
            cost=Sum("cost_nano"),
        )
    )
    return [dict(row) for row in counted.order_by("arm")]


@require_POST
@access.requires("engineer")
def rollout_weight(request: access.Request, pk: str) -> HttpResponse:
    found, form = _rollout(request, pk), forms.Weight(request.POST)
    if form.is_valid():
        with explained(request):
            rolling.set_weight(found, request.user, form.cleaned_data["weight"])
            messages.success(request, _("The new share holds from the next call on."))
    return redirect("rollout", request.tenant.slug, pk)


@require_POST
@access.requires("engineer")
def rollout_stop(request: access.Request, pk: str) -> HttpResponse:
    with explained(request):
        rolling.stop(_rollout(request, pk), request.user, request.POST.get("note", "").strip())
        messages.success(request, _("Rolled back. The champion answers from the next call on."))
    return redirect("rollout", request.tenant.slug, pk)


@require_POST
@access.requires("engineer")
def rollout_promote(request: access.Request, pk: str) -> HttpResponse:
    with explained(request):
        promoted = rolling.promote(_rollout(request, pk), request.user)
        messages.success(request, _("%(adapter)s answers every call now.") % {"adapter": promoted.adapter})
    return redirect("rollout", request.tenant.slug, pk)


def policy(request: access.Request) -> HttpResponse:
    """The policy in force, its versions, and the form that makes the next one."""
    versions = GuardrailPolicy.objects.filter(tenant=request.tenant).select_related("created_by")
    stored = versions.first()
    text = stored.text if stored else DEFAULT.read_text()
    problem, status = None, 200
    if request.method == "POST":
        if not access.can(request.role, "engineer"):
            return HttpResponse(status=403)
        text = request.POST.get("text", "").replace("\r\n", "\n")
        try:
            saved = policies.save(request.tenant, text, request.user)
            messages.success(request, _("Version %(n)d is in force from the next call on.") % {"n": saved.version})
            return redirect("policy", request.tenant.slug)
        except PolicyError as error:
            problem, status = error, 422
    context = {"text": text, "versions": versions[:20], "stored": stored, "problem": problem}
    return render(request, "inference/policy.html", context, status=status)
