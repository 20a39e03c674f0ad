"""The monthly statement of a tenant: what was used, at which prices, what was corrected and refused, what proves it.

Its parts add up to its totals, to the nano-dollar, and both to UsageMonth. Money leaves as exact decimals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from django.db.models import Sum
from django.utils import timezone

from tenants import costs
from tenants.costs import exports, rows
from tenants.models import LedgerProof, Price, RefusalCount, Tenant, UsageEvent

CURRENCY = "USD"
MOST_CORRECTIONS = 1_000  # named one by one; `corrections.complete` says whether all are
NUMBERS = ("calls", "input_tokens", "cached_tokens", "output_tokens")
PARTS = {"by_model": ("model", "served", "adapter_digest"), "by_key": ("key_id", "name"), "by_price": ("price_id",)}
COLUMNS = ("part", "name", "detail", "calls", "input_tokens", "cached_tokens", "output_tokens", "cost_usd")


@dataclass(frozen=True, slots=True)
class Statement:
    """A month's statement as it was read; `parts` are the rows of `costs.by_model` and its like, by name."""

    tenant: Tenant
    month: str
    start: datetime
    end: datetime
    made_at: datetime
    total: dict[str, Any]
    booked_late: int
    parts: dict[str, list[dict[str, Any]]]
    prices: list[Price]
    corrections: list[UsageEvent]
    complete: bool
    refused: list[dict[str, Any]]
    proof: LedgerProof | None

    @property
    def final(self) -> bool:
        """Whether the month is over; until then the statement grows."""
        return self.made_at >= self.end

    def plain(self) -> dict[str, Any]:
        """Ready for JSON: money as exact decimals of dollars, instants in ISO 8601."""
        tenant = {"slug": self.tenant.slug, "name": self.tenant.name, "time_zone": self.tenant.time_zone}
        return {
            "tenant": tenant,
            "month": self.month,
            "period": {"start": self.start.isoformat(), "end": self.end.isoformat()},
            "final": self.final,
            "currency": CURRENCY,
            "totals": _line(self.total, ()),
            **{name: [_line(row, PARTS[name]) for row in rows] for name, rows in self.parts.items()},
            "prices": [_price(price) for price in self.prices],
            "corrections": {
                "booked_late": costs.dollars(self.booked_late),
                "complete": self.complete,
                "rows": [_correction(row) for row in self.corrections],
            },
            "refused": self.refused,
            "proof": _proof(self.proof),
            "made_at": self.made_at.isoformat(timespec="seconds"),
        }


def of(tenant: Tenant, month: str, late: int | None = None) -> Statement:
    """The statement of a month `YYYYMM`. Its total is added up from its parts, which are one reading of the daily
    sums: they agree while the writer books on. Raises costs.NoSuchMonth.

    `late`, `booked_late` of the statement, is the part of the total that reached the budget's counter only afterwards:
    corrections and calls whose hold was lost.
    """
    start, end = costs.instants(tenant, *costs.bounds(month))
    if late is None:
        late = costs.months(tenant, only=month).get(month, {"corrected": 0})["corrected"]
    parts = costs.parts(tenant, month)
    total = {name: sum(row[name] for row in parts["by_price"]) for name in costs.NOTHING}
    used = [row["price_id"] for row in parts["by_price"]]
    corrections = _corrections(tenant, *costs.bounds(month))
    return Statement(
        tenant=tenant,
        month=month,
        start=start,
        end=end,
        made_at=timezone.now().astimezone(UTC),
        total=total,
        booked_late=late,
        parts=parts,
        prices=list(Price.objects.filter(pk__in=used)),
        corrections=corrections[:MOST_CORRECTIONS],
        complete=len(corrections) <= MOST_CORRECTIONS,
        refused=_refused(tenant, start, end),
        proof=LedgerProof.objects.first(),
    )


def table(statement: Statement, bom: bool = False) -> Iterator[str]:
    """The statement as CSV: a line for each part, the total last."""
    return exports.table(COLUMNS, _table(statement), bom)


def _table(statement: Statement) -> Iterator[list[Any]]:
    for part, names in PARTS.items():
        for row in statement.parts[part]:
            texts = [str(row[name]) for name in names]
            yield [part, texts[0], " ".join(filter(None, texts[1:])), *_numbers(row)]
    yield ["total", statement.tenant.name, statement.month, *_numbers(statement.total)]


def _numbers(row: dict[str, Any]) -> list[Any]:
    return [*(row[name] for name in NUMBERS), Decimal(costs.dollars(row["spent"]))]


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


def _corrections(tenant: Tenant, first: date, next_: date) -> list[UsageEvent]:
    """The month's correction rows, newest first, one more than a statement names if there are that many."""
    found = rows.between(tenant, first, next_).filter(source=UsageEvent.Source.ADJUSTMENT)
    return list(found[: MOST_CORRECTIONS + 1])


def _correction(row: UsageEvent) -> dict[str, Any]:
    tokens = {name: getattr(row, name) for name in NUMBERS[1:]}
    told = {"request_id": row.request_id, "occurred_at": row.occurred_at.isoformat(), "reason": row.reason}
    return told | tokens | {"cost": costs.dollars(row.cost_nano)}


def _refused(tenant: Tenant, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """[{limit, calls}], most first."""
    counted = RefusalCount.objects.filter(tenant=tenant, minute__gte=start, minute__lt=end)
    found = counted.values("limit").annotate(calls=Sum("count")).order_by("-calls", "limit")
    return [{"limit": row["limit"], "calls": row["calls"]} for row in found]


def _proof(proof: LedgerProof | None) -> dict[str, Any] | None:
    """The latest proof of the whole ledger: rows = sums = counters."""
    return {"at": proof.at.isoformat(), "holds": proof.holds, "position": proof.position} if proof else None
