"""Looking for calls in the ledger, newest first, a page at a time by cursor.

Rule: one page examines at most LOOKED rows, however rare what is looked for is; then it says how far back it came and
where to go on. Rows stand by instant and id in an index; nothing else of them does, but the request id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet

from tenants.costs.rows import BadCursor, cursor, read_cursor
from tenants.models import Tenant, UsageEvent

__all__ = ["LOOKED", "BadCursor", "Filters", "Found", "chunks", "find"]
LOOKED = 50_000  # rows that one page examines
CHUNK = 2_000  # rows that an export writes at once
UNSETTLED = "unsettled"  # every status but settled


@dataclass(frozen=True, slots=True)
class Filters:
    """What is wanted of calls in [since, until); what is empty wants nothing.

    `adapter` is a served name or the beginning of an adapter's digest; `min_ms` a latency.
    """

    since: datetime | None = None
    until: datetime | None = None
    request_id: str = ""
    key: str = ""
    model: str = ""
    adapter: str = ""
    status: str = ""
    reason: str = ""
    end_user: str = ""
    min_ms: int = 0

    def match(self) -> Q:
        """Everything but the time."""
        exact = {"request_id": self.request_id, "key": self.key, "model": self.model, "reason": self.reason}
        wanted = Q(source=UsageEvent.Source.GATEWAY) & Q(
            **{name: value for name, value in (exact | {"end_user": self.end_user}).items() if value}
        )
        if self.adapter:
            wanted &= Q(served=self.adapter) | Q(adapter_digest__startswith=self.adapter.lower())
        if self.status == UNSETTLED:
            wanted &= ~Q(status=UsageEvent.Status.SETTLED)
        elif self.status:
            wanted &= Q(status=self.status)
        if self.min_ms:
            wanted &= Q(latency_ms__gte=self.min_ms)
        return wanted


@dataclass(frozen=True, slots=True)
class Found:
    """`after` is where the next page starts, empty on the last one; `reached` how far back the search came if it ended
    with LOOKED rows examined and not with a full page.
    """

    rows: list[UsageEvent]
    after: str
    reached: datetime | None = None


def find(tenant: Tenant, wanted: Filters, after: str = "", size: int = 25) -> Found:
    """Two queries, one for a request id. Raises BadCursor."""
    if wanted.request_id:  # an index of its own
        return Found(list(tenant.usage.filter(wanted.match()).order_by("-occurred_at", "-id")[:size]), "")
    rows = _behind(_between(tenant, wanted), read_cursor(after) if after else None)
    last = _last_of(rows)
    within = rows.filter(_not_behind(last), occurred_at__gte=last.occurred_at) if last else rows
    found = list(within.filter(wanted.match())[: size + 1])
    if len(found) > size:
        return Found(found[:size], cursor(found[size - 1]))
    return Found(found, cursor(last), last.occurred_at) if last else Found(found, "")


def chunks(tenant: Tenant, wanted: Filters) -> Iterator[list[UsageEvent]]:
    """Every call that is wanted, newest first, CHUNK at a time; each query examines at most LOOKED rows."""
    after = ""
    while True:
        found = find(tenant, wanted, after, CHUNK)
        if found.rows:
            yield found.rows
        after = found.after
        if not after:
            return


def _between(tenant: Tenant, wanted: Filters) -> QuerySet[UsageEvent]:
    rows = tenant.usage.order_by("-occurred_at", "-id")
    if wanted.since:
        rows = rows.filter(occurred_at__gte=wanted.since)
    return rows.filter(occurred_at__lt=wanted.until) if wanted.until else rows


def _behind(rows: QuerySet[UsageEvent], place: tuple[datetime, int] | None) -> QuerySet[UsageEvent]:
    if place is None:
        return rows
    at, number = place
    return rows.filter(Q(occurred_at__lt=at) | Q(occurred_at=at, id__lt=number), occurred_at__lte=at)


def _not_behind(last: UsageEvent) -> Q:
    """Up to `last` and itself: several rows may have its instant."""
    return Q(occurred_at__gt=last.occurred_at) | Q(occurred_at=last.occurred_at, id__gte=last.pk)


def _last_of(rows: QuerySet[UsageEvent]) -> UsageEvent | None:
    """The last row that one page may examine, if there are more."""
    return next(iter(rows.only("id", "occurred_at")[LOOKED - 1 : LOOKED]), None)
