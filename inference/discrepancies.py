"""What people hear of the reconciliation: a sentence, a mail to the operators, figures for Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from django.utils import timezone
from django.utils.translation import gettext as _
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from inference.models import EngineReading, Replica
from tenants.notices import mail

log = logging.getLogger(__name__)
SIDES = ("input", "output")  # OpenTelemetry's gen_ai.token.type of the two counts


def newest() -> list[EngineReading]:
    """The last comparison of each replica that there still is."""
    rows = (EngineReading.objects.filter(replica=one.name).exclude(since=None).first() for one in Replica.objects.all())
    return [row for row in rows if row]


def tell() -> int:
    """Mails the operators what does not hold, once for as long as it does not; answers how many replicas."""
    told = 0
    for reading in newest():
        if reading.holds or reading.told_at:
            continue
        try:
            mail.tell_operators(lambda reading=reading: _words(reading))  # type: ignore[misc]
        except OSError as error:
            log.warning("The operators are not told of %s yet: %s", reading.replica, error)
            continue
        EngineReading.objects.filter(pk=reading.pk).update(told_at=timezone.now())
        told += 1
    return told


def _words(reading: EngineReading) -> tuple[str, str]:
    words = {"replica": reading.replica, "sums": sentence(reading)}
    subject = _("%(replica)s and the ledger do not agree") % words
    text = _(
        "The engine %(replica)s counted other tokens than the ledger has booked for it:\n\n%(sums)s\n\n"
        "Either calls reach it past the gateway, or some are not billed as they were. "
        "`manage.py reconcile_engines` measures again."
    )
    return subject, text % words


def sentence(reading: EngineReading) -> str:
    """Both sums, their difference and what is allowed for, in tokens."""
    since = f"{reading.since:%Y-%m-%d %H:%M:%S}" if reading.since else "?"
    parts = []
    for side, name in enumerate(("prompt", "generated")):
        counted, allowed = reading.counted[side] - reading.base[side], reading.allowance[side]
        parts.append(
            f"{name}: engine {counted}, ledger {reading.booked[side]}, our own {reading.own[side]}, "
            f"difference {reading.difference[side]:+d}, allowed for {allowed}"
        )
    return f"since {since} UTC, {'; '.join(parts)}"


def exposition() -> bytes:
    """The newest comparisons in Prometheus's text format. Raises django.db.DatabaseError."""
    registry = CollectorRegistry()
    registry.register(_Figures())
    return generate_latest(registry)


class _Figures(Collector):
    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ["server_address", "gen_ai_token_type"]
        off = GaugeMetricFamily(
            "paramstack_reconciliation_difference_tokens",
            "Tokens that an engine counted, less those that the ledger booked for it and our own.",
            labels=labels,
        )
        allowed = GaugeMetricFamily(
            "paramstack_reconciliation_allowed_tokens", "By how many tokens that may be off.", labels=labels
        )
        holds = GaugeMetricFamily(
            "paramstack_reconciliation_holds", "1 where the two agree, 0 where not.", labels=labels[:1]
        )
        for reading in newest():
            holds.add_metric([reading.replica], float(bool(reading.holds)))
            for side, difference, most in zip(SIDES, reading.difference, reading.allowance, strict=True):
                off.add_metric([reading.replica, side], difference)
                allowed.add_metric([reading.replica, side], most)
        yield from (off, allowed, holds)
