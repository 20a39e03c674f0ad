"""Makes a Redis that lost something what the ledger says it is, under a new generation of the mark.

Nobody is admitted meanwhile: the mark is gone. What the stream still holds is booked first; then counters and epochs
are written in one step, only if nothing happened since they were read. Holds that survived stay held. Events that were
lost their gateways still know: they send them, and the holds of open calls, to a Redis without a mark, for which the
writer waits before it comes here, and events again when they meet the new mark.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import redis
from django.utils import timezone

from tenants import counters, ledger, metering
from tenants.ledger import comparison, entries, outcomes
from tenants.models import LedgerHead, Tenant, UsageEvent, UsageMonth

log = logging.getLogger(__name__)
BATCH = 2_000
CHUNK = 5_000  # ids asked for at once


class Foreign(Exception):
    """The Redis at REDIS_URL carries the mark of another installation. It is not touched."""

    def __init__(self, mark: str) -> None:
        super().__init__(
            f"This Redis belongs to another installation ({mark}). Give this one its own REDIS_URL, or, once the "
            "other is gone, take the Redis over with: manage.py ledger_writer --adopt"
        )
        self.mark = mark


def due(head: LedgerHead, mark: str, sequence: int, booked: str) -> bool:
    """Whether a Redis with this state is not the one that the ledger knows: another mark, or it has forgotten steps.

    One that has confirmed what the ledger does not have is out of step as well: a database was put back.
    """
    ahead = bool(booked) and metering.place(booked) > metering.place(head.position)
    return mark != head.mark or sequence < head.sequence or ahead


def is_new(head: LedgerHead, mark: str) -> bool:
    """Whether nothing has ever been counted: a new installation on an empty Redis."""
    return head.mark.endswith(":1") and not head.sequence and not mark and not UsageEvent.objects.exists()


def close(client: redis.Redis, head: LedgerHead, mark: str) -> None:
    """Takes a Redis that is not what the ledger knows out of service. Raises Foreign."""
    if mark and mark.partition(":")[0] != head.mark.partition(":")[0]:
        raise Foreign(mark)
    log.warning("Redis is not what the ledger knows (mark %s, expected %s): it is rebuilt.", mark or "none", head.mark)
    if mark:
        counters.run(client, metering.UNMARK, metering.unmark(mark))


def run(
    client: redis.Redis,
    head: LedgerHead,
    mark: str,
    names: outcomes.Names,
    lead: Callable[[], LedgerHead | None],
) -> int:
    """Rebuilds; answers how many entries it booked. `lead` renews the writer's lease and answers the head, or None.

    Raises Foreign, and ledger.Fenced if another writer has taken over.
    """
    installation, _, generation = head.mark.partition(":")
    theirs, _, number = mark.partition(":")
    if mark and theirs != installation:
        raise Foreign(mark)
    new = is_new(head, mark)
    latest = max(int(generation), int(number) if number.isdigit() else 0)
    _advance(head, f"{installation}:{latest + 1}")
    head = _still(lead(), f"{installation}:{latest + 1}")
    if mark:
        counters.run(client, metering.UNMARK, metering.unmark(mark))
    booked = 0
    while True:
        taken = _drain(client, head, names)
        booked += taken
        if not taken and _restore(client, head, new):
            log.warning("Redis is rebuilt from the ledger: %s, %d entries booked before.", head.mark, booked)
            return booked
        head = _still(lead(), head.mark)


def adopt(client: redis.Redis) -> str:
    """Takes over a Redis of another installation, which must be gone; answers its mark, empty if there was none."""
    mark: Any = client.hget(metering.STATE, "mark") or ""
    if mark and mark.partition(":")[0] != ledger.mark().partition(":")[0]:
        counters.run(client, metering.UNMARK, metering.unmark(mark))
        return str(mark)
    return ""


def _still(head: LedgerHead | None, mark: str) -> LedgerHead:
    if head is None or head.mark != mark:
        raise ledger.Fenced("Another writer has taken over.")
    return head


def _advance(head: LedgerHead, mark: str) -> None:
    """A new generation, which reads the stream from its start; what was not confirmed is void with the counters."""
    here = LedgerHead.objects.filter(pk=head.pk, mark=head.mark, position=head.position, writer=head.writer)
    if not here.update(mark=mark, position="0-0", unconfirmed=[]):
        raise ledger.Fenced("Another writer has taken over.")


def _drain(client: redis.Redis, head: LedgerHead, names: outcomes.Names) -> int:
    """Books a batch of what is left in the stream and takes it off; a proof among it compares nothing any more."""
    found: Any = client.xrange(metering.STREAM, min=f"({head.position}", count=BATCH)
    if not found:
        return 0
    batch = [entries.read(*entry) for entry in found]
    for entry in batch:
        if entry.proof:
            entry.proof = ("", "")
    written = ledger.book(batch, head, 0, names)
    told = [(entry, tenant, month, nano, why) for entry, tenant, month, nano, why in written.unconfirmed]
    counters.run(client, metering.CONFIRM, metering.confirm("", written.position, told))
    return written.taken


def _restore(client: redis.Redis, head: LedgerHead, new: bool) -> bool:
    """One try of the REBUILD step. False: something happened meanwhile, or the Redis went away and came back."""
    sequence = int(client.hget(metering.STATE, "sequence") or 0)
    holds: Any = client.hkeys(metering.HOLDS)
    packed = metering.rebuild(
        head.mark,
        sequence,
        max(sequence, head.sequence) + 1,
        list(_months()),
        [(str(pk), epoch) for pk, epoch in Tenant.objects.values_list("pk", "epoch")],
        _booked(holds),
        full=not new,
    )
    return bool(counters.run(client, metering.REBUILD, packed))


def _months() -> Iterator[tuple[str, str, int, int]]:
    """Every month that a call may still be admitted to or settled in, of every tenant, zeros included.

    A zero says that the month is known: a late event's cost then has a counter to go to.
    """
    now = timezone.now()
    oldest = comparison.oldest_month(now)
    sums = {
        (str(tenant), month): (cost, corrected)
        for tenant, month, cost, corrected in UsageMonth.objects.filter(month__gte=oldest).values_list(
            "tenant", "month", "cost_nano", "corrected_nano"
        )
    }
    coming = f"{now.replace(day=1) + timedelta(days=32):%Y%m}"
    for tenant in Tenant.objects.values_list("pk", flat=True):
        for month in (oldest, f"{now:%Y%m}", coming):
            sums.setdefault((str(tenant), month), (0, 0))
    for (tenant_id, month), (cost, corrected) in sorted(sums.items()):
        yield tenant_id, month, cost, corrected


def _booked(holds: list[str]) -> set[str]:
    """Those of these calls that the ledger has."""
    found: set[str] = set()
    for start in range(0, len(holds), CHUNK):
        chunk = holds[start : start + CHUNK]
        found.update(UsageEvent.objects.filter(request_id__in=chunk).values_list("request_id", flat=True))
    return found
