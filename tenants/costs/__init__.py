"""What a tenant's calls cost, from the ledger's daily and monthly sums; the rows themselves are never added up here.

Months (`YYYYMM`) and days are those of the tenant's time zone, money is integer nano-dollars.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import QuerySet, Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from tenants.costs import forecasts, savings
from tenants.models import NANO, Budget, Price, Tenant, UsageDay, UsageEndUser, UsageMonth
from tenants.problems import Refused

SUMS = {
    "spent": Sum("cost_nano"),
    "calls_": Sum("calls"),
    "input_": Sum("input_tokens"),
    "cached_": Sum("cached_tokens"),
    "output_": Sum("output_tokens"),
}
NOTHING = {"spent": 0, "calls": 0, "input_tokens": 0, "cached_tokens": 0, "output_tokens": 0}
END_USERS = 20  # shown by name; the rest is one line
Row = dict[str, Any]


class NoSuchMonth(Refused):
    """Text that is no month."""

    field = "month"

    def __init__(self, text: str) -> None:
        super().__init__(_("“%(text)s” is no month. Write it as YYYYMM, for example 202611.") % {"text": text[:20]})
        self.text = text


def today(tenant: Tenant, now: datetime | None = None) -> date:
    """The day where the tenant is."""
    return (now or timezone.now()).astimezone(ZoneInfo(tenant.time_zone)).date()


def now(tenant: Tenant) -> datetime:
    """The instant, on the clock where the tenant is."""
    return timezone.now().astimezone(ZoneInfo(tenant.time_zone))


def this_month(tenant: Tenant) -> str:
    return f"{today(tenant):%Y%m}"


def bounds(month: str) -> tuple[date, date]:
    """The first day of a month and of the one after it; raises NoSuchMonth."""
    if len(month) != 6 or not (month.isascii() and month.isdigit()) or month[4:] not in MONTH_NUMBERS:
        raise NoSuchMonth(month)
    year, number = int(month[:4]), int(month[4:])
    if not 2000 <= year <= 2999:
        raise NoSuchMonth(month)
    return date(year, number, 1), date(year + number // 12, number % 12 + 1, 1)


MONTH_NUMBERS = {f"{number:02d}" for number in range(1, 13)}


def instants(tenant: Tenant, first: date, next_: date) -> tuple[datetime, datetime]:
    """The instants at which the days [first, next_) begin and end where the tenant is."""
    zone = ZoneInfo(tenant.time_zone)
    return datetime.combine(first, time(), zone), datetime.combine(next_, time(), zone)


def passed(tenant: Tenant, month: str) -> float:
    """How much of a month has passed where the tenant is, 0 to 1."""
    start, end = instants(tenant, *bounds(month))
    return max(0.0, min(1.0, (now(tenant) - start) / (end - start)))


def budget(tenant: Tenant) -> int:
    """Nano-dollars a month; 0 without a budget."""
    try:
        return tenant.budget.monthly_nano
    except Budget.DoesNotExist:
        return 0


def months(tenant: Tenant, most: int = 13, only: str = "") -> dict[str, Row]:
    """Figures of the latest months that have rows (or `only` of one), by month, newest first."""
    rows = UsageMonth.objects.filter(tenant=tenant).order_by("-month")
    rows = rows.filter(month=only) if only else rows[:most]
    return {row.month: of_total(row) | {"corrected": row.corrected_nano} for row in rows}


def month(tenant: Tenant, month: str | None = None) -> Row:
    """{spent, budget, calls, input_tokens, cached_tokens, output_tokens, tokens} of a month; default: this one."""
    found = UsageMonth.objects.filter(tenant=tenant, month=month or this_month(tenant)).first()
    figures = of_total(found) if found else NOTHING | {"tokens": 0}
    return figures | {"budget": budget(tenant)}


def by_day(tenant: Tenant, month: str | None = None) -> list[Row]:
    """[{day, spent, calls, input_tokens, ...}], days with calls only, oldest first."""
    return days(tenant, *bounds(month or this_month(tenant)))


def days(tenant: Tenant, first: date, next_: date) -> list[Row]:
    """As by_day, for the days [first, next_)."""
    rows: Any = _days(tenant, first, next_).values("day").annotate(**SUMS).order_by("day")
    return [{"day": row["day"], **_figures(row)} for row in rows]


def by_model(tenant: Tenant, month: str | None = None) -> list[Row]:
    """[{model, served, adapter_digest, spent, ...}]: what was asked for and what answered, dearest first."""
    return _by(tenant, month, "model", "served", "adapter_digest")


def by_adapter(tenant: Tenant, month: str | None = None) -> list[Row]:
    """[{served, adapter_digest, spent, ...}], dearest first; without a digest the base model itself answered."""
    return _by(tenant, month, "adapter_digest", "served")


def by_key(tenant: Tenant, month: str | None = None) -> list[Row]:
    """[{key_id, name, spent, ...}], dearest first."""
    names = dict(tenant.api_keys.values_list("pk", "name"))
    return [row | {"name": names.get(row["key_id"], "")} for row in _by(tenant, month, "key_id")]


def by_price(tenant: Tenant, month: str | None = None) -> list[Row]:
    """[{price_id, spent, ...}]: what each version of the price book brought in; 0: calls without a price."""
    return _by(tenant, month, "price_id")


def parts(tenant: Tenant, month: str) -> dict[str, list[Row]]:
    """by_model, by_key and by_price of one month, from one reading."""
    names = {"by_model": ("model", "served", "adapter_digest"), "by_key": ("key_id",), "by_price": ("price_id",)}
    rows = _by(tenant, month, *(name for part in names.values() for name in part))
    found = {part: _merged(rows, by) for part, by in names.items()}
    keys = dict(tenant.api_keys.values_list("pk", "name"))
    return found | {"by_key": [row | {"name": keys.get(row["key_id"], "")} for row in found["by_key"]]}


def by_end_user(tenant: Tenant, month: str | None = None, most: int = END_USERS) -> list[Row]:
    """[{end_user, spent, ...}], dearest first; the last one, `end_user` empty, is all the rest of the month:
    other end users and calls that named none.
    """
    wanted = month or this_month(tenant)
    found = UsageEndUser.objects.filter(tenant=tenant, month=wanted).order_by("-cost_nano", "end_user")[:most]
    rows = [{"end_user": row.end_user, **of_total(row)} for row in found]
    whole = UsageMonth.objects.filter(tenant=tenant, month=wanted).first()
    rest = {name: of_total(whole)[name] - sum(row[name] for row in rows) for name in NOTHING} if whole else NOTHING
    return rows + [{"end_user": "", **rest}] if any(rest.values()) else rows


def by_tenant(month: str) -> list[Row]:
    """[{tenant, spent, budget, ...}] of every tenant with rows in the month, dearest first. For operators only."""
    rows = UsageMonth.objects.filter(month=month).select_related("tenant__budget").order_by("-cost_nano")
    return [{"tenant": row.tenant, "budget": budget(row.tenant), **of_total(row)} for row in rows]


def forecast(tenant: Tenant, now: datetime | None = None) -> forecasts.Forecast | None:
    """What this month will have cost at its end, with its uncertainty; None while it is too early (`forecasts`)."""
    at = (now or timezone.now()).astimezone(ZoneInfo(tenant.time_zone))
    first = min(at.date() - timedelta(forecasts.WINDOW), at.date().replace(day=1))
    return forecasts.of_month(days(tenant, first, at.date() + timedelta(1)), at)


def saving(tenant: Tenant, of_month: str | None = None, reference: Price | None = None) -> savings.Saving | None:
    """What a month's tokens would have cost at an API's price; None without a reference price in the book."""
    price = reference or savings.default(savings.references())
    return savings.of(month(tenant, of_month), price) if price else None


def running(rows: list[Row], first: date, last: date, budget: int) -> list[Row]:
    """[{day, spent, left}] for each day from `first` to `last`: the month's spend up to its end, and what was left."""
    spent, found, by = 0, [], {row["day"]: row["spent"] for row in rows}
    for day in (first + timedelta(n) for n in range((last - first).days + 1)):
        spent += by.get(day, 0)
        found.append({"day": day, "spent": spent, "left": budget - spent})
    return found


def dollars(nano: int) -> str:
    """Nano-dollars as the exact decimal that leaves the API: `-0.000000001`."""
    whole, rest = divmod(abs(nano), NANO)
    return f"{'-' if nano < 0 else ''}{whole}.{rest:09d}"


def _by(tenant: Tenant, month: str | None, *names: str) -> list[Row]:
    rows = _days(tenant, *bounds(month or this_month(tenant))).values(*names).annotate(**SUMS).order_by()
    found = [{**{name: row[name] for name in names}, **_figures(row)} for row in rows]
    return sorted(found, key=lambda row: (-row["spent"], *(str(row[name]) for name in names)))


def _merged(rows: list[Row], names: tuple[str, ...]) -> list[Row]:
    """Rows of sums, added up by fewer columns, dearest first."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        of = tuple(row[name] for name in names)
        into = found.setdefault(of, dict(zip(names, of, strict=True)) | NOTHING)
        for name in NOTHING:
            into[name] += row[name]
    return sorted(found.values(), key=lambda row: (-row["spent"], *(str(row[name]) for name in names)))


def _figures(row: Row) -> dict[str, int]:
    return {
        "spent": int(row["spent"] or 0),
        "calls": int(row["calls_"] or 0),
        "input_tokens": int(row["input_"] or 0),
        "cached_tokens": int(row["cached_"] or 0),
        "output_tokens": int(row["output_"] or 0),
    }


def of_total(row: UsageMonth | UsageEndUser) -> Row:
    """A roll-up row as figures."""
    tokens = {name: getattr(row, name) for name in ("calls", "input_tokens", "cached_tokens", "output_tokens")}
    return tokens | {"spent": row.cost_nano, "tokens": row.input_tokens + row.output_tokens}


def _days(tenant: Tenant, first: date, next_: date) -> QuerySet[UsageDay]:
    return UsageDay.objects.filter(tenant=tenant, day__gte=first, day__lt=next_)
