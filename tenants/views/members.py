"""Pages of who belongs to a tenant: members, invitations, and the page on which an invitation is accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from tenants import access, forms
from tenants import members as belonging
from tenants.models import Invitation, Member
from tenants.problems import Refused

PAGE = 50


def members(request: access.Request) -> HttpResponse:
    return _page(request, forms.NewInvitation())


def _page(request: access.Request, form: forms.NewInvitation, status: int = 200, **fresh: Any) -> HttpResponse:
    rows = request.tenant.members.select_related("user").order_by("user__username")
    invited = request.tenant.invitations.select_related("invited_by", "accepted_by")
    context = {
        "page": Paginator(rows, PAGE).get_page(request.GET.get("page")),
        "invitations": [(each, state(each)) for each in invited[:PAGE]],
        "roles": Member.Role.choices,
        "form": form,
    }
    return render(request, "tenants/members.html", context | fresh, status=status)


def state(invitation: Invitation) -> str:
    """open, accepted, withdrawn or expired."""
    if invitation.accepted_at:
        return "accepted"
    if invitation.withdrawn_at:
        return "withdrawn"
    return "expired" if invitation.expires_at <= timezone.now() else "open"


@never_cache
@access.requires("own")
def invite(request: access.Request) -> HttpResponse:
    """Makes an invitation and shows its link in this answer, once."""
    if request.method != "POST":
        return redirect("members", request.tenant.slug)
    form = forms.NewInvitation(request.POST)
    if not form.is_valid():
        return _page(request, form, status=422)
    given = form.cleaned_data
    try:
        made, text = belonging.invite(request.tenant, given["email"], given["role"], request.user, link_of(request))
    except Refused as error:
        forms.explain(form, error)
        return _page(request, form, status=422)
    return _page(request, forms.NewInvitation(), fresh=made, link=link_of(request)(text))


def link_of(request: HttpRequest) -> Callable[[str], str]:
    """The address at which an invitation's text is accepted."""
    return lambda text: request.build_absolute_uri(reverse("invitation", args=[text]))


@require_POST
@access.requires("own")
def invitation_withdraw(request: access.Request, pk: int) -> HttpResponse:
    found = get_object_or_404(Invitation, tenant=request.tenant, pk=pk)
    try:
        belonging.withdraw(found, request.user)
        sentence = _("The invitation of %(email)s is withdrawn; its link is dead.")
        messages.success(request, sentence % {"email": found.email})
    except Refused as error:
        messages.error(request, str(error))
    return redirect("members", request.tenant.slug)


@require_POST
@access.requires("own")
def member_role(request: access.Request, pk: int) -> HttpResponse:
    found = get_object_or_404(Member.objects.select_related("user"), tenant=request.tenant, pk=pk)
    form = forms.NewRole(request.POST)
    if form.is_valid() and _done(request, belonging.set_role, found, form.cleaned_data["role"]):
        words = {"name": found.user.username, "role": Member.Role(form.cleaned_data["role"]).label}
        messages.success(request, _("%(name)s is now: %(role)s.") % words)
    return redirect("members", request.tenant.slug)


@require_POST
@access.requires("own")
def member_remove(request: access.Request, pk: int) -> HttpResponse:
    found = get_object_or_404(Member.objects.select_related("user"), tenant=request.tenant, pk=pk)
    if _done(request, belonging.remove, found):
        messages.success(request, _("%(name)s is no longer a member.") % {"name": found.user.username})
    if found.user == request.user and not request.user.is_superuser:
        return redirect("home")
    return redirect("members", request.tenant.slug)


def _done(request: access.Request, verb: Callable[..., object], member: Member, *rest: Any) -> bool:
    """Whether the verb was done; why not (the last owner stays) is told on the next page."""
    try:
        verb(member, *rest, request.user)
    except Refused as error:
        messages.error(request, str(error))
        return False
    return True


@never_cache
@login_required
def invitation(request: Any, token: str) -> HttpResponse:
    """Which tenant and role an invitation is for; a POST accepts it. One that cannot be accepted says why."""
    try:
        found = belonging.find(token)
        if request.method != "POST":
            return render(request, "tenants/invitation.html", {"invitation": found})
        member = belonging.accept(token, request.user)
    except Refused as error:
        return render(request, "tenants/invitation.html", {"problem": str(error)}, status=error.status)
    words = {"tenant": member.tenant.name, "role": member.get_role_display()}
    messages.success(request, _("You are now a member of %(tenant)s: %(role)s.") % words)
    return redirect("overview", member.tenant.slug)
