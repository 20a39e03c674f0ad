"""Is it me or the engine? What a tenant's members should know when calls fail, in plain sentences.

Two sides: ours (engine, gateway, counters, ledger) and yours (organisation, budget, limits, keys). Each finding says
how it is, what that means for calls, and what to do. What cannot be measured is unknown, never well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from inference import standing
from paramstack_site import readiness
from paramstack_site.health import LATE
from paramstack_site.templatetags.console import decimal, money, percent, when
from tenants import counters, gauges, ledger, metering, traffic
from tenants.gauges import TIGHT
from tenants.models import Tenant
from tenants.refusals import wording
from tenants.traffic import causes
from tenants.traffic.causes import OURS, YOURS, Cause

if TYPE_CHECKING:
    pass

WELL, NEAR, BAD, UNKNOWN = "live", "warn", "failed", "unknown"  # of the status vocabulary
SOON = timedelta(days=7)


@dataclass(frozen=True)
class Finding:
    """`kind` is of the status vocabulary; `todo` is empty where nothing is to be done."""

    side: str
    name: str
    kind: str
    word: str
    sentence: str
    todo: str = ""
    url: str = ""


@dataclass(frozen=True)
class Status:
    """`verdict` is well, near, yours, ours, both or unknown; `failed` are calls of the last hour, not answered."""

    verdict: str
    title: str
    findings: list[Finding]
    failed: list[tuple[Cause, int]]
    calls: int

    @property
    def ours(self) -> list[Finding]:
        return [each for each in self.findings if each.side == OURS]

    @property
    def yours(self) -> list[Finding]:
        return [each for each in self.findings if each.side == YOURS]

    @property
    def failed_ours(self) -> int:
        return sum(n for cause, n in self.failed if cause.side == OURS)

    @property
    def failed_yours(self) -> int:
        return sum(n for cause, n in self.failed if cause.side == YOURS)


def read(tenant: Tenant) -> Status:
    reading = gauges.read(tenant)
    findings = [*_engines(tenant), _gateway(), *_books(reading), _organisation(tenant), _budget(tenant, reading)]
    findings += [_limits(tenant, reading), _keys(tenant)]
    ends, refused = traffic.ended(tenant, timedelta(hours=1))
    verdict, title = _verdict(findings)
    failed = causes.count(ends, refused)
    return Status(verdict, title, findings, failed, sum(ends.values()))


def _verdict(findings: Iterable[Finding]) -> tuple[str, str]:
    bad = {side: [each for each in findings if each.side == side and each.kind == BAD] for side in (OURS, YOURS)}
    if bad[OURS] and bad[YOURS]:
        return "both", _("Both: something is wrong here and on your side")
    if bad[OURS]:
        return "ours", _("It is us: %(names)s") % {"names": ", ".join(each.name for each in bad[OURS])}
    if bad[YOURS]:
        return "yours", _("It is on your side: %(names)s") % {"names": ", ".join(each.name for each in bad[YOURS])}
    if any(each.kind == UNKNOWN for each in findings):
        return "unknown", _("Not everything can be measured at the moment")
    near = [each for each in findings if each.kind not in (WELL, BAD)]
    if near:
        return "near", _("Calls pass. Keep an eye on: %(names)s") % {"names": ", ".join(each.name for each in near)}
    return "well", _("All is well: calls pass on both sides")


def _engines(tenant: Tenant) -> list[Finding]:
    """The replicas of the engine, and whether the tenant's loaded adapters answer on any of them."""
    standings = standing.of(tenant)
    found = [_replicas(standings)]
    if homeless := standing.homeless(tenant, standings):
        names = ", ".join(map(str, homeless))
        sentence = _("%(names)s answers on no engine at the moment; calls of it end with 503.") % {"names": names}
        todo = _("It may be on its way; the traffic page shows how far it is. If it failed, load it again.")
        found.append(Finding(OURS, _("Adapters"), BAD, _("Not answering"), sentence, todo, _traffic(tenant)))
    return found


def _replicas(standings: list[standing.Standing]) -> Finding:
    name = _("Engine")
    states = [one.state for one in standings]
    well = sum(one.is_well for one in standings)
    rest = ", ".join(one.replica.name for one in standings if not one.is_well)
    words = {"n": well, "all": len(states), "rest": rest}
    if well == len(states) and well:
        sentence = ngettext("The engine answers.", "All %(n)d replicas of the engine answer.", well) % words
        return Finding(OURS, name, WELL, _("Running"), sentence)
    if well:
        sentence = _("%(n)d of %(all)d replicas answer and take the calls. Not well: %(rest)s.") % words
        return Finding(OURS, name, NEAR, _("In part"), sentence)
    if standing.UNKNOWN in states:
        sentence = _("Nobody has looked at the engine lately (%(rest)s), so how it is cannot be told.") % words
        return Finding(OURS, name, UNKNOWN, _("Unknown"), sentence, _("The operator looks at the engine's agent."))
    todo = _("Send calls again with a growing pause. The operator starts it again.")
    if not states:
        return Finding(OURS, name, BAD, _("None"), _("No engine is known here, so no call can be answered."), todo)
    sentence = _("The engine does not answer. Calls end with 503 and cost nothing.")
    return Finding(OURS, name, BAD, _("Not reachable"), sentence, todo)


def _traffic(tenant: Tenant) -> str:
    return reverse("traffic", args=[tenant.slug])


def _gateway() -> Finding:
    """Asked as a caller without a key, whom a gateway that is well turns away."""
    name = _("Gateway")
    if readiness.status(f"http://{settings.HOST}:{settings.PORT}/v1/models") == 401:
        return Finding(OURS, name, WELL, _("Running"), _("The gateway answers and checks keys."))
    sentence = _("The gateway of this console does not answer at /v1.")
    return Finding(OURS, name, BAD, _("Not reachable"), sentence, _("The operator looks at the web process."))


def _books(reading: gauges.Reading) -> list[Finding]:
    """The counters in Redis, as the reading of the limits met them, and the ledger's writer."""
    import redis

    name, ledger_ = _("Limits and counters"), _("Ledger")
    try:
        waiting = counters.connect().xlen(metering.STREAM)
    except redis.RedisError:
        sentence = _("The counters do not answer, so nobody can be admitted: every call gets 503 and costs nothing.")
        todo = _("Nothing on your side. Calls pass again as soon as the counters are back.")
        lost = Finding(OURS, name, BAD, _("Not reachable"), sentence, todo)
        return [lost, Finding(OURS, ledger_, UNKNOWN, _("Unknown"), _("What waits to be booked cannot be read."))]
    if reading.problem:
        sentence = _("The counters are being rebuilt from the ledger. Until then every call gets 503.")
        counting = Finding(OURS, name, BAD, _("Rebuilding"), sentence, _("Wait some seconds and send the call again."))
    else:
        counting = Finding(OURS, name, WELL, _("Running"), _("Limits and money are counted for every call."))
    return [counting, _ledger(ledger_, waiting)]


def _ledger(name: str, waiting: int) -> Finding:
    if not ledger.is_kept():
        sentence = _("Nobody writes the ledger. Calls still pass, but their rows and costs do not appear.")
        return Finding(OURS, name, BAD, _("Not running"), sentence, _("The operator starts the ledger writer."))
    if waiting > LATE:
        sentence = _("Rows and costs appear late: %(n)d calls wait to be booked. Calls pass.") % {"n": waiting}
        return Finding(OURS, name, NEAR, _("Late"), sentence)
    return Finding(OURS, name, WELL, _("Running"), _("Each call is booked within about a second."))


def _organisation(tenant: Tenant) -> Finding:
    name = _("Organisation")
    if tenant.status == Tenant.Status.ACTIVE:
        return Finding(YOURS, name, WELL, _("Active"), _("The organisation is active."))
    sentence = _("The organisation is suspended, so every key is refused.")
    return Finding(YOURS, name, BAD, _("Suspended"), sentence, _("Ask the operator of this installation why."))


def _budget(tenant: Tenant, reading: gauges.Reading) -> Finding:
    name, url = _("Budget"), reverse("limits", args=[tenant.slug])

    def finding(kind: str, word: str, sentence: str, todo: str = "") -> Finding:
        return Finding(YOURS, name, kind, word, sentence, todo, url if todo else "")

    if not reading.budget:
        sentence = _("There is no budget, so every call that costs something is refused with 429.")
        return finding(BAD, _("None"), sentence, _("An owner or the operator sets one."))
    if reading.used is None or reading.left is None:
        return finding(UNKNOWN, _("Unknown"), _("What is spent cannot be read at the moment."))
    words = {
        "left": money(reading.left),
        "budget": money(reading.budget),
        "used": percent(reading.used / reading.budget, 0),
    }
    if not reading.left:
        sentence = _("All of the month's budget of %(budget)s is spent or held. Calls get 429.") % words
        return finding(BAD, _("Used up"), sentence, _("An owner raises the budget; it holds from the next call on."))
    sentence = _("%(left)s of %(budget)s are left this month; %(used)s is spent or held.") % words
    if reading.money_tight:
        return finding(NEAR, _("Nearly used up"), sentence, _("Raise it before it is used up."))
    return finding(WELL, _("Enough"), sentence)


def _limits(tenant: Tenant, reading: gauges.Reading) -> Finding:
    """The limit of the organisation that is nearest. Those of single keys stand on the keys' pages."""
    name, url = _("Limits"), reverse("limits", args=[tenant.slug])
    closed = [gauge for gauge in reading.limits if gauge.limit == 0]
    if closed:
        sentence = _("%(limit)s is set to 0, which lets no call pass.") % {"limit": wording.LIMITS[closed[0].name]}
        return Finding(YOURS, name, BAD, _("Closed"), sentence, _("An owner raises it."), url)
    set_ = [gauge for gauge in reading.limits if gauge.limit]
    if not set_:
        return Finding(YOURS, name, WELL, _("None"), _("The organisation has no limits; its keys may have their own."))
    if reading.problem:
        return Finding(
            YOURS, name, UNKNOWN, _("Unknown"), _("What is used of the limits cannot be read at the moment.")
        )
    nearest = max(set_, key=lambda gauge: (gauge.used or 0) / (gauge.limit or 1))
    share = (nearest.used or 0) / (nearest.limit or 1)
    words = {"limit": wording.LIMITS[nearest.name], "share": percent(share, 0)}
    words |= {"used": decimal(nearest.used, 0), "most": decimal(nearest.limit, 0)}
    sentence = _("%(limit)s: %(used)s of %(most)s in use (%(share)s); every other limit is further away.") % words
    if share >= TIGHT:
        todo = _(
            "Spread the calls over time, or have the limit raised. A refusal says in Retry-After how long to wait."
        )
        return Finding(YOURS, name, NEAR, _("Nearly full"), sentence, todo, url)
    return Finding(YOURS, name, WELL, _("Room"), sentence)


def _keys(tenant: Tenant) -> Finding:
    name, url = _("Keys"), reverse("settings", args=[tenant.slug])
    live = list(tenant.api_keys.live().filter(playground=False).order_by("expires_at"))
    calling = [key for key in live if "inference" in key.scopes]
    if not calling:
        sentence = _("There is no key that may call models: each program gets 401.")
        return Finding(YOURS, name, NEAR, _("None"), sentence, _("Create a key for inference."), url)
    ends = [(at, key) for key in calling if (at := _end(key))]
    soon = min(ends, key=lambda pair: pair[0], default=None)
    if soon and soon[0] < timezone.now() + SOON:
        words = {"name": soon[1].name, "at": when(soon[0])}
        sentence = _("%(name)s ends %(at)s; calls with it get 401 from then on.") % words
        return Finding(YOURS, name, NEAR, _("One ends soon"), sentence, _("Replace it before that."), url)
    sentence = ngettext("%(n)d key may call models.", "%(n)d keys may call models.", len(calling)) % {"n": len(calling)}
    return Finding(YOURS, name, WELL, _("Active"), sentence)


def _end(key: Any) -> Any:
    return min((at for at in (key.expires_at, key.revoked_at) if at), default=None)


def plain(found: Status) -> dict[str, Any]:
    """For REST."""
    findings = [
        {"side": each.side, "name": each.name, "state": each.kind, "sentence": each.sentence, "todo": each.todo}
        for each in found.findings
    ]
    failed = [
        {"cause": cause.name, "side": cause.side, "title": str(cause.title), "todo": str(cause.todo), "calls": n}
        for cause, n in found.failed
    ]
    return {
        "verdict": found.verdict,
        "title": found.title,
        "findings": findings,
        "calls_last_hour": found.calls,
        "failed_last_hour": failed,
    }
