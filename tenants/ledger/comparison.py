"""What the counters were at one instant against what the ledger says of the same instant.

The ledger's writer calls this in the transaction in which it meets the reading, when exactly the events before it are
booked. A month's counter holds what its events cost, plus what corrections moved since (`corrected`); the ledger's sum
holds rows and corrections. Less its own corrections each is the same number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson

from tenants.models import LedgerProof, UsageMonth

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Finding = dict[str, str]


@dataclass(frozen=True)
class Reading:
    """What the PROOF step read. Names are `tenant:YYYYMM`, tenants or keys; numbers are nano-dollars or calls."""

    at: datetime
    spent: Mapping[str, int]
    corrected: Mapping[str, int]
    held: Mapping[str, int]  # as the month counts it
    holds: Mapping[str, int]  # as its holds add up
    open: Mapping[str, int]  # as tenant or key counts it
    calls: Mapping[str, int]  # as its holds are
    count: int  # holds
    unread: int

    @classmethod
    def of(cls, text: str) -> Reading:
        """Raises ValueError, KeyError or TypeError for what PROOF did not write."""
        read = orjson.loads(text)
        months = {name: tuple(int(part) for part in parts) for name, parts in dict(read["months"]).items()}
        if not all(":" in name for name in months):
            raise ValueError("a month without a tenant")
        spent, held, corrected = ({name: parts[i] for name, parts in months.items()} for i in range(3))
        holds, open_, calls = (
            {name: int(part) for name, part in dict(read[what]).items()} for what in ("holds", "open", "calls")
        )
        at = EPOCH + timedelta(microseconds=int(read["at"]))
        return cls(at, spent, corrected, held, holds, open_, calls, int(read["count"]), int(read["unread"]))


def compare(nonce: str, text: str, position: str) -> LedgerProof | None:
    """Books the proof; None for a reading that is none or was booked before."""
    try:
        reading = Reading.of(text)
    except (ValueError, KeyError, TypeError):
        return None
    findings = list(_findings(reading))
    facts = {
        "at": reading.at,
        "position": position,
        "tenants": len({name.partition(":")[0] for name in reading.spent}),
        "open_calls": reading.count,
        "held_nano": sum(reading.held.values()),
        "spent_nano": sum(reading.spent.values()),
        "holds": not findings,
        "findings": findings,
    }
    return LedgerProof.objects.get_or_create(nonce=nonce[:32], defaults=facts)[0]


def oldest_month(at: datetime) -> str:
    """The earliest month that the counters must know: the one before, wherever on earth the tenant is."""
    return f"{(at.replace(day=1) - timedelta(days=1)):%Y%m}"


def _findings(reading: Reading) -> Iterator[Finding]:
    sums = _sums(reading)
    for name in sorted(sums.keys() | reading.spent.keys()):
        booked = sums.get(name, 0)
        counted = reading.spent.get(name, 0) - reading.corrected.get(name, 0)
        if booked != counted:
            yield _finding("spent", name, booked, counted)
    for name in sorted(reading.held.keys() | reading.holds.keys()):
        if reading.held.get(name, 0) != reading.holds.get(name, 0):
            yield _finding("held", name, reading.holds.get(name, 0), reading.held.get(name, 0))
    for name in sorted(reading.open.keys() | reading.calls.keys()):
        if reading.open.get(name, 0) != reading.calls.get(name, 0):
            yield _finding("open", name, reading.calls.get(name, 0), reading.open.get(name, 0))
    if reading.unread:
        yield _finding("unread", "", 0, reading.unread)


def _sums(reading: Reading) -> dict[str, int]:
    """Of every month that the counters know or must know: what it cost without its corrections."""
    named = {tuple(name.rsplit(":", 1)) for name in reading.spent}
    oldest = min([oldest_month(reading.at), *(month for _, month in named)])
    rows = UsageMonth.objects.filter(month__gte=oldest).values_list("tenant", "month", "cost_nano", "corrected_nano")
    return {
        f"{tenant}:{month}": cost - corrected
        for tenant, month, cost, corrected in rows
        if month >= oldest_month(reading.at) or (str(tenant), month) in named
    }


def _finding(what: str, name: str, ledger: int, counter: int) -> Finding:
    """`ledger` is what rows or holds add up to, `counter` what Redis counted; money as nano-dollars."""
    owner, _, month = name.partition(":")
    return {"what": what, "of": owner, "month": month, "ledger": str(ledger), "counter": str(counter)}
