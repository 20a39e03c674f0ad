"""Where a tenant's alerts are posted: set, tested and removed on its page. The secret is shown in one answer, once."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from tenants import access, forms
from tenants.notices import webhooks
from tenants.problems import Refused
from tenants.views import tenant


@never_cache
@access.requires("own")
def webhook_set(request: access.Request) -> HttpResponse:
    if request.method != "POST":
        return redirect("tenant", request.tenant.slug)
    form = forms.WebhookAddress(request.POST)
    if form.is_valid():
        try:
            _hook, secret = webhooks.set_(request.tenant, form.cleaned_data["url"], request.user)
            return tenant.page(request, secret=secret)
        except Refused as error:
            forms.explain(form, error)
    return tenant.page(request, hook_form=form, status=422)


@require_POST
@access.requires("own")
def webhook_test(request: access.Request) -> HttpResponse:
    """Posts a signed test message and says what came back."""
    try:
        status = webhooks.test(request.tenant)
    except (Refused, webhooks.NotDelivered) as error:
        messages.error(request, _("The test was not delivered: %(reason)s") % {"reason": error})
    else:
        messages.success(request, _("The test was delivered; the address answered %(status)d.") % {"status": status})
    return redirect("tenant", request.tenant.slug)


@require_POST
@access.requires("own")
def webhook_remove(request: access.Request) -> HttpResponse:
    try:
        webhooks.remove(request.tenant, request.user)
        messages.success(request, _("The webhook is removed. Alerts go out by e-mail only."))
    except Refused as error:
        messages.error(request, str(error))
    return redirect("tenant", request.tenant.slug)
