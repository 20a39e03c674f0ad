"""The playground: two models side by side. The browser calls the gateway itself, with a key of one hour."""

from __future__ import annotations

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from inference.models import Adapter, Alias, BaseModel
from tenants import access
from tenants import playground as playing
from tenants.models import Tenant


@access.requires("call")
def playground(request: access.Request) -> HttpResponse:
    """The form. Nothing is made before the first question."""
    tenant: Tenant = request.tenant
    loaded = Adapter.objects.filter(tenant=tenant, state=Adapter.State.LOADED)
    bases = [base.name for base in BaseModel.objects.all()]
    names = [*Alias.objects.filter(tenant=tenant).values_list("name", flat=True), *map(str, loaded)]
    context = {
        "models": [*bases, *[name for name in names if name not in bases]],
        "left": bases[0] if bases else "",
        "right": next(iter(map(str, loaded)), names[0] if names else ""),
        "base_url": request.build_absolute_uri("/v1"),
    }
    return render(request, "inference/playground.html", context)


@require_POST
@never_cache
@access.requires("call")
def playground_key(request: access.Request) -> HttpResponse:
    """The key of this login, for the page's script: made now, or the one that is still good."""
    key, text = playing.key(request.tenant, request.user, request.session)
    return JsonResponse({"id": key.pk, "key": text, "expires_at": key.expires_at})
