"""Usage as files: ledger rows and daily sums as CSV (RFC 4180), the sums also in FOCUS 1.2. Sums equal the ledger's.

Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay numbers. Money is an exact
decimal of dollars, times are UTC.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from asgiref.sync import sync_to_async

from tenants import costs
from tenants.costs import rows
from tenants.models import Tenant, UsageDay, UsageEvent

BOM = "\ufeff"  # tells spreadsheets that the file is UTF-8
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
INSIDE = re.compile(r"(;\s*)(?=[=+\-@])")  # a spreadsheet whose list separator is the semicolon begins a cell there
ROWS = (
    "request_id", "source", "occurred_at", "day", "status", "key_id", "model", "served", "adapter_digest", "arm",
    "weight_bp", "price_id", "end_user", "input_tokens", "cached_tokens", "output_tokens", "cost_usd",
    "request_digest", "answer_digest", "policy_digest", "reason", "latency_ms", "ttft_ms",
    "base_digest", "engine", "engine_version", "load_epoch",
)  # fmt: skip
# FinOps Open Cost and Usage Specification 1.2: its mandatory columns, those that fit, and ours with `x_`.
FOCUS = (
    "BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "BillingCurrency", "ConsumedQuantity", "ConsumedUnit",
    "PricingQuantity", "PricingUnit", "PricingCategory", "ChargePeriodStart", "ChargePeriodEnd", "BillingPeriodStart",
    "BillingPeriodEnd", "BillingAccountId", "BillingAccountName", "SubAccountId", "SubAccountName", "ProviderName",
    "PublisherName", "InvoiceIssuerName", "ServiceCategory", "ServiceName", "SkuId", "SkuPriceId", "ResourceId",
    "ResourceName", "ResourceType", "ChargeCategory", "ChargeClass", "ChargeFrequency", "ChargeDescription", "Tags",
    "x_Calls", "x_InputTokens", "x_CachedInputTokens", "x_OutputTokens", "x_BlockedCalls", "x_AbortedCalls",
)  # fmt: skip
PROVIDER = "Param Stack"
Cells = Sequence[Any]


def table(head: Sequence[str], lines: Iterable[Cells], bom: bool = False) -> Iterator[str]:
    """A CSV file in pieces; str cells are made safe, numbers and None are written as they are."""
    yield (BOM if bom else "") + _text([head])
    for line in lines:
        yield _text([line])


def safe(text: str) -> str:
    """The text as no spreadsheet takes it for a formula."""
    text = INSIDE.sub(r"\1'", text)
    return f"'{text}" if text.startswith(FORMULA) else text


def usage(tenant: Tenant, first: date, next_: date, key_id: str = "", bom: bool = False) -> Iterator[str]:
    """Ledger rows of the days [first, next_), corrections among them, newest first, in pieces of many rows."""
    return of_rows(rows.chunks(tenant, first, next_, key_id), bom)


def of_rows(chunks: Iterable[Iterable[UsageEvent]], bom: bool = False) -> Iterator[str]:
    """Ledger rows as they come, a piece for each chunk."""
    yield (BOM if bom else "") + _text([ROWS])
    for found in chunks:
        yield _text(map(_usage_row, found))


async def in_thread(pieces: Iterator[str]) -> AsyncIterator[str]:
    """The pieces for an asynchronous response: read one by one, as they are sent, in the thread of the database."""
    read = sync_to_async(lambda: next(pieces, None))
    while (piece := await read()) is not None:
        yield piece


def _usage_row(row: UsageEvent) -> Cells:
    values = {name: getattr(row, name) for name in ROWS if name not in {"occurred_at", "cost_usd"}}
    values |= {"occurred_at": _instant(row.occurred_at), "cost_usd": Decimal(costs.dollars(row.cost_nano))}
    return [values[name] for name in ROWS]


def focus(tenant: Tenant, first: date, next_: date, bom: bool = False) -> Iterator[str]:
    """A FOCUS 1.2 line for each day, key, model and price of the days [first, next_); a day is the charge period.

    ListCost, ContractedCost and EffectiveCost equal BilledCost: there are no discounts, credits or taxes.
    """
    keys = dict(tenant.api_keys.values_list("pk", "name"))
    days = UsageDay.objects.filter(tenant=tenant, day__gte=first, day__lt=next_).order_by("day", "pk")
    return table(FOCUS, (_focus_row(tenant, day, keys) for day in days.iterator(rows.CHUNK)), bom)


def _focus_row(tenant: Tenant, row: UsageDay, keys: dict[str, str]) -> Cells:
    cost, tokens = Decimal(costs.dollars(row.cost_nano)), row.input_tokens + row.output_tokens
    day = [_instant(at) for at in costs.instants(tenant, row.day, row.day + timedelta(1))]
    month = [_instant(at) for at in costs.instants(tenant, *costs.bounds(f"{row.day:%Y%m}"))]
    tags = {"key_id": row.key_id, "key_name": keys.get(row.key_id, ""), "adapter_digest": row.adapter_digest}
    described = f"{row.calls} calls of {row.model}, answered by {row.served or 'nobody'}"
    values: dict[str, Any] = {
        **dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), cost),
        "BillingCurrency": "USD",
        "ConsumedQuantity": tokens,
        "ConsumedUnit": "Tokens",
        "PricingQuantity": Decimal(tokens) / 1_000_000,
        "PricingUnit": "1000000 Tokens",
        "PricingCategory": "Standard",
        "ChargePeriodStart": day[0],
        "ChargePeriodEnd": day[1],
        "BillingPeriodStart": month[0],
        "BillingPeriodEnd": month[1],
        **dict.fromkeys(("BillingAccountId", "SubAccountId"), tenant.slug),
        **dict.fromkeys(("BillingAccountName", "SubAccountName"), tenant.name),
        **dict.fromkeys(("ProviderName", "PublisherName", "InvoiceIssuerName"), PROVIDER),
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Model inference",
        "SkuId": row.model,
        "SkuPriceId": str(row.price_id) if row.price_id else None,
        "ResourceId": row.adapter_digest or row.served or None,
        "ResourceName": row.served or None,
        "ResourceType": "Adapter" if row.adapter_digest else "Model",
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ChargeDescription": described,
        "Tags": json.dumps({name: value for name, value in tags.items() if value}, ensure_ascii=False),
        "x_Calls": row.calls,
        "x_InputTokens": row.input_tokens,
        "x_CachedInputTokens": row.cached_tokens,
        "x_OutputTokens": row.output_tokens,
        "x_BlockedCalls": row.blocked,
        "x_AbortedCalls": row.aborted,
    }
    return [values.get(name) for name in FOCUS]


def _text(lines: Iterable[Cells]) -> str:
    file = io.StringIO()
    writer = csv.writer(file)  # its ends of lines are RFC 4180's
    for line in lines:
        writer.writerow([_cell(cell) for cell in line])
    return file.getvalue()


def _cell(cell: Any) -> Any:
    if isinstance(cell, Decimal):
        return f"{cell:f}"
    if isinstance(cell, str):
        return safe(cell)
    return cell.isoformat() if isinstance(cell, date) else cell


def _instant(at: datetime) -> str:
    precise = "microseconds" if at.microsecond else "seconds"
    return at.astimezone(UTC).isoformat(timespec=precise).replace("+00:00", "Z")
