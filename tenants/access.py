"""Who may enter a tenant and do what. Every query of a view starts at `request.tenant`; a stranger gets 404."""

from collections.abc import Callable, Collection
from functools import wraps
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db.models import F, FilteredRelation, Q
from django.http import Http404, HttpRequest, HttpResponse

from tenants.models import Member, Tenant, User

View = Callable[..., HttpResponse]


class Request(HttpRequest):
    """What views under `/t/<slug>/` get: `enter` has let the person in. A type only; nothing makes one."""

    tenant: Tenant
    role: str
    user: User  # never anonymous behind enter()
    htmx: Any


ALL_ROLES = frozenset(Member.Role.values)
# What a role may do. An operator may do everything in every tenant.
CAPABILITIES: dict[str, frozenset[str]] = {
    "read": ALL_ROLES,
    "usage": ALL_ROLES | {"usage"},  # the second is no person's: a key with that scope
    "review": frozenset({"owner", "engineer", "reviewer"}),
    "engineer": frozenset({"owner", "engineer"}),
    "keys": frozenset({"owner", "engineer", "developer"}),
    "call": frozenset({"owner", "engineer", "developer"}),
    "own": frozenset({"owner"}),
}


def role_of(user: User, tenant: Tenant) -> str | None:
    """The role of `user` in `tenant`; an operator counts as owner; None for a stranger."""
    member = Member.objects.filter(tenant=tenant, user=user).first()
    return member.role if member else "owner" if user.is_superuser else None


def can(role: str, capability: str) -> bool:
    return role in CAPABILITIES[capability]


def grants(role: str, scopes: Collection[str]) -> bool:
    """Whether a role may make, change or rotate a key with these scopes: who gets its text gets its rights."""
    return can(role, "engineer" if "manage" in scopes else "keys")


def enter(request: Any, slug: str) -> HttpResponse | None:
    """Sets request.tenant and request.role, or sends to login, or raises Http404 for a stranger."""
    if not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path())
    own = FilteredRelation("members", condition=Q(members__user=request.user))  # one query for tenant, role and budget
    found = Tenant.objects.filter(slug=slug).annotate(own=own, own_role=F("own__role"))
    tenant: Any = found.select_related("budget").first()
    role = tenant and (tenant.own_role or ("owner" if request.user.is_superuser else None))
    if not tenant or not role or tenant.status == Tenant.Status.CLOSED:
        raise Http404
    request.tenant, request.role = tenant, role
    return None


def requires(capability: str) -> Callable[[View], View]:
    """A view that only roles with `capability` may use; another member gets 403."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not can(request.role, capability):  # type: ignore[attr-defined]  # set by enter()
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return guarded

    return decorate
