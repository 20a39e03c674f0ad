"""Are the processes behind the console well? Each check says a kind of the status vocabulary, a word and a detail.

Rule: what cannot be measured is unknown, never green.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from django.conf import settings
from django.utils.translation import gettext as _

from inference.engines import client
from tenants import counters, metering

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
    try:
        served = client.Engine(settings.ENGINE_URL).models()
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
    """How many usage events wait in the stream: not read yet, or read and not booked."""
    import redis

    name = _("ledger writer")
    try:
        groups = {group["name"]: group for group in connection.xinfo_groups(metering.STREAM)}
    except redis.ResponseError:  # no stream before the first call
        return Check(name, "live", _("Running"), _("no call yet"))
    group = groups.get(metering.GROUP)
    if group is None:
        return Check(name, "warn", _("Not reading"))
    waiting = (group["lag"] or 0) + group["pending"]
    detail = _("waiting: %(n)d") % {"n": waiting}
    return Check(name, "warn", _("Late"), detail) if waiting > LATE else Check(name, "live", _("Running"), detail)
