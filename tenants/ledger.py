"""The usage ledger: one row for each admitted call, sealed in batches under signed Merkle roots. Append-only.

Rows come from the usage stream and from nowhere else. Writing an event twice writes one row.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from typing import Any

from django.db import transaction
from django.db.models import Sum
from django.utils.dateparse import parse_datetime

from attestation import receipts
from tenants.models import LedgerBatch, Tenant, UsageEvent

SCOPE = "ledger"  # a batch holds rows of many tenants; its statement names none of them
# What a receipt shows and the signature covers, in the ledger's own column names.
IDENTITY = ("request_id", "status", "model", "served", "adapter_digest", "arm", "policy_digest", "reason")
DIGESTS = ("request_digest", "answer_digest")
NUMBERS = ("weight_bp", "input_tokens", "output_tokens", "cost_nano", "latency_ms", "ttft_ms")


class NoSuchRow(LookupError):
    """The tenant's ledger has no row of that request."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"There is no call {request_id} in this ledger. A fresh one appears within a second.")
        self.request_id = request_id


def write(events: Iterable[dict[str, Any]]) -> LedgerBatch | None:
    """Books usage events (`metering.Event` as dicts) in one transaction; None if all of them were booked before.

    Raises IntegrityError if another writer books the same event at the same instant (try again: it is booked then),
    or if an event names a tenant or a key that does not exist.
    """
    fresh = {event["request_id"]: event for event in events}
    with transaction.atomic():
        for known in UsageEvent.objects.filter(request_id__in=fresh).values_list("request_id", flat=True):
            del fresh[known]
        if not fresh:
            return None
        rows = [_row(event, position) for position, event in enumerate(fresh.values())]
        statement = receipts.seal(SCOPE, rows[0].request_id, [canonical(row) for row in rows])
        batch = LedgerBatch.objects.create(root=statement.subject_digest, size=len(rows), statement=statement)
        for row in rows:
            row.batch = batch
        UsageEvent.objects.bulk_create(rows)
        return batch


def receipt(tenant: Tenant, request_id: str) -> dict[str, Any]:
    """The proof, for `attestation.receipts.verify`, that a call of `tenant` is in the ledger; raises NoSuchRow."""
    row = UsageEvent.objects.filter(tenant=tenant, request_id=request_id).select_related("batch__statement").first()
    if row is None:
        raise NoSuchRow(request_id)
    rows = [canonical(other) for other in row.batch.rows.order_by("position")]
    return receipts.issue(rows, row.position, row.batch.statement.envelope)


def canonical(row: UsageEvent) -> dict[str, Any]:
    """The row as its leaf is hashed."""
    moment = row.occurred_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body: dict[str, Any] = {name: getattr(row, name) for name in IDENTITY + DIGESTS + NUMBERS}
    return body | {"tenant": str(row.tenant_id), "key": row.key_id, "occurred_at": moment}


def spent(tenant_id: str, month: str) -> int:
    """Nano-dollars that a tenant's booked calls of a UTC month `YYYYMM` cost."""
    rows = UsageEvent.objects.filter(tenant_id=tenant_id).in_month(month)
    return int(rows.aggregate(total=Sum("cost_nano"))["total"] or 0)


def _row(event: dict[str, Any], position: int) -> UsageEvent:
    values = {name: event[name] for name in IDENTITY + DIGESTS + NUMBERS}
    moment = parse_datetime(event["occurred_at"])
    if moment is None:
        raise ValueError(f"{event['request_id']}: {event['occurred_at']!r} is no instant.")
    return UsageEvent(tenant_id=event["tenant"], key_id=event["key"], occurred_at=moment, position=position, **values)
