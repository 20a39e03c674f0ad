"""The monthly statement of a tenant: what was used, at which prices, what was corrected and refused, what proves it.

Its totals are those of UsageMonth, to the nano-dollar, and its parts add up to them. Money leaves as exact decimals.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db.models import Sum
from django.utils import timezone

from tenants import costs, exports
from tenants.models import LedgerProof, Price, RefusalCount, Tenant, UsageEvent, UsageMonth

CURRENCY = "USD"
MOST_CORRECTIONS = 1_000  # named one by one; `corrections.complete` says whether all are
NUMBERS = ("calls", "input_tokens", "cached_tokens", "output_tokens")
PARTS = {"by_model": ("model", "served", "adapter_digest"), "by_key": ("key_id", "name"), "by_price": ("price_id",)}
COLUMNS = ("part", "name", "detail", "calls", "input_tokens", "cached_tokens", "output_tokens", "cost_usd")


def of(tenant: Tenant, month: str) -> dict[str, Any]:
    """The statement of a month `YYYYMM` as plain values, ready for JSON; an open month is a draft (`final` false).

    Raises costs.NoSuchMonth.
    """
    first, next_ = costs.bounds(month)
    start, end = costs.instants(tenant, first, next_)
    found = UsageMonth.objects.filter(tenant=tenant, month=month).first()
    parts = {name: getattr(costs, name)(tenant, month) for name in PARTS}
    used = [row["price_id"] for row in parts["by_price"]]
    return {
        "tenant": {"slug": tenant.slug, "name": tenant.name, "time_zone": tenant.time_zone},
        "month": month,
        "period": {"start": start.isoformat(), "end": end.isoformat()},
        "final": timezone.now() >= end,
        "currency": CURRENCY,
        "totals": _total(found),
        **{name: [_line(row, PARTS[name]) for row in rows] for name, rows in parts.items()},
        "prices": [_price(price) for price in Price.objects.filter(pk__in=used)],
        "corrections": _corrections(tenant, start, end, found),
        "refused": _refused(tenant, start, end),
        "proof": _proof(),
        "made_at": timezone.now().astimezone(UTC).isoformat(timespec="seconds"),
    }


def table(statement: dict[str, Any], bom: bool = False) -> Iterator[str]:
    """The statement as CSV: a line for each part, the total last."""
    return exports.table(COLUMNS, list(_table(statement)), bom)


def _table(statement: dict[str, Any]) -> Iterator[list[Any]]:
    for part, names in PARTS.items():
        for row in statement[part]:
            texts = [str(row[name]) for name in names]
            yield [part, texts[0], " ".join(filter(None, texts[1:])), *_numbers(row)]
    yield ["total", statement["tenant"]["name"], statement["month"], *_numbers(statement["totals"])]


def _numbers(row: dict[str, Any]) -> list[Any]:
    return [*(row[name] for name in NUMBERS), Decimal(row["cost"])]


def _total(found: UsageMonth | None) -> dict[str, Any]:
    if found is None:
        return dict.fromkeys(NUMBERS, 0) | {"cost": costs.dollars(0)}
    return {name: getattr(found, name) for name in NUMBERS} | {"cost": costs.dollars(found.cost_nano)}


def _line(row: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: row[name] for name in (*names, *NUMBERS)} | {"cost": costs.dollars(row["spent"])}


def _price(price: Price) -> dict[str, Any]:
    """A version of the price book, dollars a million tokens, with the instants between which it was in force."""
    fields = ("input", "output", "cached", "batch_input", "batch_output")
    nanos = {name: getattr(price, f"{name}_nano_per_mtok") for name in fields}
    return {
        "id": price.pk,
        "model": price.model,
        "kind": price.kind,
        "valid_from": price.valid_from.isoformat(),
        "valid_until": price.valid_until and price.valid_until.isoformat(),
        **{name: None if nano is None else costs.dollars(nano) for name, nano in nanos.items()},
    }


def _corrections(tenant: Tenant, start: datetime, end: datetime, found: UsageMonth | None) -> dict[str, Any]:
    """The month's correction rows; `booked_late` is the part of the total that reached the counters afterwards."""
    named = tenant.usage.filter(
        source=UsageEvent.Source.ADJUSTMENT, occurred_at__gte=start, occurred_at__lt=end
    ).order_by("-occurred_at", "-id")
    rows = list(named[: MOST_CORRECTIONS + 1])
    return {
        "booked_late": costs.dollars(found.corrected_nano if found else 0),
        "complete": len(rows) <= MOST_CORRECTIONS,
        "rows": [_correction(row) for row in rows[:MOST_CORRECTIONS]],
    }


def _correction(row: UsageEvent) -> dict[str, Any]:
    tokens = {name: getattr(row, name) for name in NUMBERS[1:]}
    told = {"request_id": row.request_id, "occurred_at": row.occurred_at.isoformat(), "reason": row.reason}
    return told | tokens | {"cost": costs.dollars(row.cost_nano)}


def _refused(tenant: Tenant, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """[{limit, calls}], most first."""
    counted = RefusalCount.objects.filter(tenant=tenant, minute__gte=start, minute__lt=end)
    rows = counted.values("limit").annotate(calls=Sum("count")).order_by("-calls", "limit")
    return [{"limit": row["limit"], "calls": row["calls"]} for row in rows]


def _proof() -> dict[str, Any] | None:
    """The latest proof of the whole ledger: rows = sums = counters."""
    proof = LedgerProof.objects.first()
    return {"at": proof.at.isoformat(), "holds": proof.holds, "position": proof.position} if proof else None
