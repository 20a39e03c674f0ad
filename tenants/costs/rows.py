"""The ledger's rows of a tenant, newest first, a page at a time: by the index on instant and id, and never counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.db.models import Max, Min, Q, QuerySet
from django.utils.translation import gettext as _

from tenants import costs
from tenants.models import Tenant, UsageDay, UsageEvent
from tenants.problems import Refused

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = timedelta(2)  # a row's day is that of the zone its tenant had then; zones are up to 26 hours apart
CHUNK = 2_000  # rows that an export reads at once


class BadCursor(Refused):
    """Text that no page ended with."""

    field = "after"

    def __init__(self, text: str) -> None:
        super().__init__(_("This is no place in the ledger. Start again from the newest row."))
        self.text = text


@dataclass(frozen=True, slots=True)
class Page:
    """Usage rows with their corrections; `after` is where the next page starts, empty on the last one."""

    rows: list[tuple[UsageEvent, list[UsageEvent]]]
    after: str


def page(tenant: Tenant, first: date, next_: date, key_id: str = "", after: str = "", size: int = 25) -> Page:
    """Usage rows of the days [first, next_), of one key or of all. Three queries at most. Raises BadCursor."""
    place = read_cursor(after) if after else None
    if key_id:
        first = _far_enough(tenant, first, next_, key_id, place, size)
    rows = between(tenant, first, next_, place).filter(source=UsageEvent.Source.GATEWAY)
    if key_id:
        rows = rows.filter(key=key_id)
    found = list(rows[: size + 1])
    shown = found[:size]
    corrections: dict[str, list[UsageEvent]] = {}
    named = tenant.usage.filter(source=UsageEvent.Source.ADJUSTMENT, request_id__in=[row.request_id for row in shown])
    for correction in named.order_by("id"):
        corrections.setdefault(correction.request_id, []).append(correction)
    pairs = [(row, corrections.get(row.request_id, [])) for row in shown]
    return Page(pairs, cursor(shown[-1]) if len(found) > size else "")


def between(
    tenant: Tenant, first: date, next_: date, place: tuple[datetime, int] | None = None
) -> QuerySet[UsageEvent]:
    """All rows of the days [first, next_), those behind `place` only, newest first."""
    start, end = costs.instants(tenant, first - ZONES, next_ + ZONES)  # for the index
    rows = tenant.usage.filter(day__gte=first, day__lt=next_, occurred_at__gte=start, occurred_at__lt=end)
    rows = rows.order_by("-occurred_at", "-id")
    if place:
        at, number = place
        rows = rows.filter(Q(occurred_at__lt=at) | Q(occurred_at=at, id__lt=number), occurred_at__lte=at)
    return rows


def chunks(tenant: Tenant, first: date, next_: date, key_id: str = "", size: int = CHUNK) -> Iterator[list[UsageEvent]]:
    """All rows of the days [first, next_), of one key or of all, newest first, `size` at a time, however many."""
    which, place = {"key": key_id} if key_id else {}, None
    if key_id:
        used = UsageDay.objects.filter(tenant=tenant, key_id=key_id, day__gte=first, day__lt=next_)
        days = used.aggregate(first=Min("day"), last=Max("day"))
        if days["first"] is None:
            return
        first, next_ = days["first"], days["last"] + timedelta(1)
    while found := list(between(tenant, first, next_, place).filter(**which)[:size]):
        yield found
        if len(found) < size:
            return
        place = found[-1].occurred_at, found[-1].pk


def cursor(row: UsageEvent) -> str:
    return f"{(row.occurred_at - EPOCH) // timedelta(microseconds=1)}-{row.pk}"


def read_cursor(text: str) -> tuple[datetime, int]:
    """(instant, id) of the row that a page ended with; raises BadCursor."""
    at, _, number = text.partition("-")
    if not (text.isascii() and at.isdigit() and number.isdigit() and len(at) <= 17 and len(number) <= 18):
        raise BadCursor(text)
    try:
        return EPOCH + timedelta(microseconds=int(at)), int(number)
    except OverflowError as error:
        raise BadCursor(text) from error


def _far_enough(
    tenant: Tenant, first: date, next_: date, key_id: str, place: tuple[datetime, int] | None, size: int
) -> date:
    """How far back a page of one key's rows must look, by the daily sums: no index is kept by key."""
    last = costs.today(tenant, place[0]) if place else next_
    used = UsageDay.objects.filter(tenant=tenant, key_id=key_id, day__gte=first, day__lt=next_, day__lte=last + ZONES)
    reached = 0
    for day, calls in used.values_list("day", "calls").order_by("-day"):
        if place is None or day < last - ZONES:
            reached += calls
        if reached > size:
            return max(first, day - ZONES)
    return first
