"""The usage ledger: one row for each admitted call, sealed in batches under signed Merkle roots. Append-only.

Rows come from the usage stream and from nowhere else. One writer moves it: `write` moves the head by compare-and-set in
the transaction of the rows, so that a second writer changes nothing. An event that comes twice is one row.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from django.db import DataError, IntegrityError, transaction
from django.utils import timezone

from attestation import receipts
from tenants import metering
from tenants.ledger import booking, comparison, entries, outcomes
from tenants.ledger.entries import Entry, Row
from tenants.models import LedgerBatch, LedgerHead, Tenant, UsageEvent
from tenants.notices import alerts

log = logging.getLogger(__name__)
SCOPE = "ledger"  # a batch holds rows of many tenants; its statement names none of them
TEXTS = ("source", *(name for name in entries.SIZES if name not in ("tenant", "key")))
NUMBERS = (*entries.COUNTS, "cost_nano")
UNBOOKABLE = (IntegrityError, DataError, ValueError)  # an entry's fault; anything else is the weather


class NoSuchRow(LookupError):
    """The tenant's ledger has no row of that request."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"There is no call {request_id} in this ledger. A fresh one appears within a second.")
        self.request_id = request_id


class Fenced(Exception):
    """Somebody else has moved the ledger since its head was read. Nothing was written."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a transaction did: how many entries it took, up to which one, and its rows if there were any."""

    taken: int
    position: str
    batch: LedgerBatch | None
    unconfirmed: outcomes.Unconfirmed


def head() -> LedgerHead:
    """Where the ledger stands. The first to ask founds the installation, however many ask at once."""
    found = LedgerHead.objects.first()
    if found is None:
        try:
            with transaction.atomic():
                found = LedgerHead.objects.create(pk=1, mark=f"{uuid.uuid4().hex}:1")
        except IntegrityError:
            found = LedgerHead.objects.get()
    return found


def mark() -> str:
    """What the Redis of this installation carries whose counters the ledger vouches for."""
    return head().mark


def is_kept() -> bool:
    """Whether a writer holds the ledger's lease."""
    return LedgerHead.objects.filter(lease_until__gt=timezone.now()).exists()


def write(
    taken: Iterable[Entry | metering.Event],
    at: LedgerHead | None = None,
    sequence: int = 0,
    names: outcomes.Names | None = None,
) -> Written:
    """Books entries of the stream, in their order, in one transaction; events that are in no stream count as late.

    Stops behind a proof, and before an entry that corrects a row of this batch: see `Written.taken`. `at` is the head
    as its writer knows it. Raises Fenced if the ledger stands elsewhere by now.
    """
    batch = _cut([entry if isinstance(entry, Entry) else entries.of(entry) for entry in taken])
    at, names = at or head(), names or outcomes.Names()
    try:
        return _write(batch, at, sequence, names, every=False)
    except IntegrityError:
        return _write(batch, at, sequence, names, every=True)


def _write(batch: Sequence[Entry], at: LedgerHead, sequence: int, names: outcomes.Names, every: bool) -> Written:
    """One try. A call whose hold was found is in no row, so only late ones are looked up, unless `every` one has to be.

    That is so after a Redis was cut back, where a hold came to life again: then the table's constraint says so.
    """
    position = batch[-1].id if batch and batch[-1].id else at.position
    with transaction.atomic():
        _move(at, position, sequence)
        book = outcomes.Book(batch, names, every)
        sealed = _seal(book.rows)
        spent = booking.add([row for row, _ in book.rows], book.differences)
        if book.unconfirmed:
            LedgerHead.objects.filter(pk=at.pk).update(unconfirmed=book.unconfirmed)
        if spent:
            alerts.check(spent)
        if batch and batch[-1].proof:
            comparison.compare(*batch[-1].proof, position)
    return Written(len(batch), position, sealed, book.unconfirmed)


def book(batch: list[Entry], at: LedgerHead, sequence: int, names: outcomes.Names) -> Written:
    """`write`; an entry that the database does not take, whatever the reason, is put aside for a person."""
    while True:
        try:
            return write(batch, at, sequence, names)
        except UNBOOKABLE as error:
            if len(batch) > 1:
                batch = batch[: len(batch) // 2]  # which of them?
                continue
            if batch[0].wrong or batch[0].row is None:
                raise
            log.error("The entry %s cannot be booked and is put aside: %s", batch[0].id, error)
            batch[0].wrong = f"not taken: {error}"[:300]


def receipt(tenant: Tenant, request_id: str) -> dict[str, Any]:
    """The proof, for `attestation.receipts.verify`, that a call of `tenant` is in the ledger; raises NoSuchRow."""
    rows = UsageEvent.objects.filter(tenant=tenant, request_id=request_id, source=UsageEvent.Source.GATEWAY)
    row = rows.select_related("batch__statement").first()
    if row is None:
        raise NoSuchRow(request_id)
    bodies = [canonical(other) for other in row.batch.rows.order_by("position")]
    return receipts.issue(bodies, row.position, row.batch.statement.envelope)


def canonical(row: UsageEvent) -> Row:
    """The row as its leaf is hashed."""
    moment = row.occurred_at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    body: Row = {name: getattr(row, name) for name in TEXTS + NUMBERS}
    names = {"tenant": str(row.tenant_id), "key": row.key_id or "", "price": row.price_id or 0}
    return entries.signed(body | names | {"occurred_at": moment, "day": row.day.isoformat()})


def _cut(batch: Sequence[Entry]) -> Sequence[Entry]:
    """As many entries as one transaction can take: an estimate that is corrected must have its row's id before."""
    estimated: set[str] = set()
    for number, entry in enumerate(batch):
        if entry.proof:
            return batch[: number + 1]
        if entry.row and entry.row["status"] == "estimated":
            estimated.add(entry.row["request_id"])
        elif entry.row and entry.row["request_id"] in estimated:
            return batch[:number]
    return batch


def _move(at: LedgerHead, position: str, sequence: int) -> None:
    here = LedgerHead.objects.filter(pk=at.pk, mark=at.mark, position=at.position, writer=at.writer)
    new: dict[str, Any] = {} if position == at.position else {"unconfirmed": []}
    if not here.update(position=position, sequence=max(at.sequence, sequence), **new):
        raise Fenced(f"The ledger no longer stands at {at.position} under {at.writer or 'no writer'}.")


def _seal(rows: Sequence[tuple[Row, int | None]]) -> LedgerBatch | None:
    if not rows:
        return None
    leaves = [entries.leaf_bytes(row) for row, _ in rows]
    statement = receipts.seal_bytes(SCOPE, f"batch_{uuid.uuid4().hex}", leaves)
    batch = LedgerBatch.objects.create(root=statement.subject_digest, size=len(rows), statement=statement)
    booking.insert(rows, batch.pk)
    return batch
