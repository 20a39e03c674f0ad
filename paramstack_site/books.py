"""The books on the overview: does the ledger's proof hold, what was refused, is the budget near its end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from inference import discrepancies
from paramstack_site.health import Check
from paramstack_site.overview import Step
from paramstack_site.templatetags.console import ago, money, percent
from tenants import gauges
from tenants.models import LedgerProof, Tenant

STALE = timedelta(minutes=30)  # three proofs have not come
NEAR = 0.8  # share of the budget


def proof() -> Check:
    """The newest proof over all tenants; one that is old says nothing about now."""
    name, newest = _("ledger proof"), LedgerProof.objects.first()
    if newest is None:
        return Check(name, "unknown", _("Not proved yet"), _("the first proof comes within ten minutes"))
    if not newest.holds:
        return Check(name, "failed", _("Differs"), ago(newest.at))
    if timezone.now() - newest.at > STALE:
        return Check(name, "unknown", _("Unknown"), _("held %(ago)s; none since") % {"ago": ago(newest.at)})
    return Check(name, "proven", _("Holds"), ago(newest.at))


def engines() -> Check:
    """Whether what the engines counted is what the ledger booked: the worst of the newest comparisons."""
    name, found = _("engines' tokens"), discrepancies.newest()
    if not found:
        return Check(name, "unknown", _("Not compared yet"), _("the first comparison comes within ten minutes"))
    if wrong := [row.replica for row in found if not row.holds]:
        return Check(name, "failed", _("Differs"), ", ".join(wrong))
    oldest = min(found, key=lambda row: row.at)
    if timezone.now() - oldest.at > STALE:
        return Check(name, "unknown", _("Unknown"), f"{oldest.replica}, {ago(oldest.at)}")
    return Check(name, "proven", _("Agrees"), ago(oldest.at))


def refused(tenant: Tenant) -> int:
    """Calls refused in the last hour, by every limit and the budget."""
    return sum(gauges.refused(tenant).values())


def budget(tenant: Tenant, month: dict[str, Any]) -> Step | None:
    """What an owner should know before calls are refused: no budget, a spent one, one that is nearly spent."""
    url, action = reverse("limits", args=[tenant.slug]), _("See limits and budget")
    if not month["budget"]:
        title = _("There is no budget, so calls that cost something are refused")
        return Step("warn", "wallet", title, _("An owner or an operator sets one."), url, action)
    share = month["spent"] / month["budget"]
    if share < NEAR:
        return None
    words = {"share": percent(share, 0), "spent": money(month["spent"]), "budget": money(month["budget"])}
    if share >= 1:
        title = _("The budget of this month is spent; calls are refused")
        text = _(
            "%(spent)s of %(budget)s. A larger budget holds from the next call on; else the next month begins anew."
        )
        return Step("bad", "wallet", title, text % words, url, action)
    title = _("%(share)s of this month's budget is spent") % words
    text = _("%(spent)s of %(budget)s. At the end of it calls are refused until the next month.") % words
    return Step("warn", "wallet", title, text, url, action)
