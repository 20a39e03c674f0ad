"""Are the processes behind the console well? Each check says a kind of the status vocabulary, a word and a detail.

Rule: what cannot be measured is unknown, never green.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from inference import serving
from inference.engines import client
from paramstack_site import readiness
from tenants import counters, ledger, metering
from tenants.ledger import proof

if TYPE_CHECKING:
    import redis

LATE = 200  # usage events that wait for the ledger before it counts as late


@dataclass(frozen=True)
class Check:
    name: str
    kind: str
    word: str
    detail: str = ""


def checks() -> list[Check]:
    return [_engine(), *_redis()]


def _engine() -> Check:
    name = _("engine")
    engine = serving.engine()
    engine.timeout = readiness.PATIENCE  # a page does not wait for an engine that hangs
    try:
        served = engine.models()
    except client.EngineDown as down:
        if down.status == HTTPStatus.SERVICE_UNAVAILABLE:
            return Check(name, "queued", _("Starting"), down.cause)
        return Check(name, "failed", _("Not reachable"))
    except client.EngineError:
        return Check(name, "failed", _("Not reachable"))
    return Check(name, "live", _("Running"), _("models: %(n)d") % {"n": len(served)})


def _redis() -> list[Check]:
    import redis

    name = _("limits")
    try:
        connection = counters.connect()
        held = connection.hlen(metering.HOLDS)
        return [Check(name, "live", _("Running"), _("calls under way: %(n)d") % {"n": held}), _ledger(connection)]
    except redis.RedisError:
        down = Check(name, "failed", _("Not reachable"), _("every call is refused"))
        return [down, Check(_("ledger writer"), "unknown", _("Unknown"))]


def _ledger(connection: redis.Redis) -> Check:
    """Whether a writer holds the lease, how many usage events wait for it, and whether the last proof holds."""
    name = _("ledger writer")
    if not ledger.is_kept():
        return Check(name, "failed", _("Not running"), _("no writer keeps the ledger"))
    waiting = connection.xlen(metering.STREAM)
    if waiting > LATE:
        return Check(name, "warn", _("Late"), _("waiting: %(n)d") % {"n": waiting})
    made = proof.latest()
    if made is not None and not made.holds:
        told = date_format(timezone.localtime(made.at), "SHORT_DATETIME_FORMAT")
        return Check(name, "failed", _("Does not add up"), _("proof of %(at)s") % {"at": told})
    return Check(name, "live", _("Running"), _("waiting: %(n)d") % {"n": waiting})
