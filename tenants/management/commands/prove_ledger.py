"""`manage.py prove_ledger`: are rows, roll-ups and counters one sum? Exits 1 with the numbers that differ."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from redis import RedisError

from tenants.ledger import proof, sums
from tenants.models import NANO, LedgerProof, Tenant


class Command(BaseCommand):
    help = "Prove that the ledger's rows, its roll-ups and the counters in Redis are one sum, under load too."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument("--timeout", type=float, default=30, help="seconds to wait for the ledger writer")

    def handle(self, *args: Any, **options: Any) -> None:
        started = time.perf_counter()
        try:
            taken = proof.take()
            made = proof.wait(taken, options["timeout"])
        except (proof.NoProof, RedisError) as error:
            raise CommandError(f"No proof was made. {error}") from error
        months, found = sums.months(), proof.differences()
        told = {
            "holds": made.holds and not found,
            "seconds": round(time.perf_counter() - started, 3),
            "at": made.at.isoformat(),
            "position": made.position,
            "open_calls": made.open_calls,
            "findings": made.findings,
            "differences": [asdict(difference) for difference in found],
            "months": [*_months(months, taken.reading)],
        }
        self.stdout.write(json.dumps(told) if options["json"] else "\n".join(_report(told, made)))
        if not told["holds"]:
            sys.exit(1)


def _months(lines: list[sums.Line], reading: Any) -> Any:
    """For each tenant and month: rows, roll-up, and what the counters were; None where Redis counts no more."""
    slugs = {str(pk): slug for pk, slug in Tenant.objects.values_list("pk", "slug")}
    known = {f"{line.key[0]}:{line.key[1]}": line for line in lines}
    for name in sorted(known.keys() | {name for name, held in reading.held.items() if held}):
        tenant, _, month = name.rpartition(":")
        line = known.get(name)
        yield {
            "tenant": slugs.get(tenant, tenant),
            "month": month,
            "calls": line.rows[0] if line else 0,
            "rows_nano": line.rows[-1] if line else 0,
            "rolled_nano": line.rolled[-1] if line else 0,
            "counter_nano": reading.spent.get(name),
            "held_nano": reading.held.get(name),
            "open": reading.open.get(tenant, 0),
        }


def _report(told: dict[str, Any], made: LedgerProof) -> Any:
    head = ("tenant", "month", "calls", "rows $", "roll-up $", "counter $", "held $", "open")
    rows = [head]
    for line in told["months"]:
        money = [_dollars(line[name]) for name in ("rows_nano", "rolled_nano", "counter_nano", "held_nano")]
        rows.append((line["tenant"], line["month"], f"{line['calls']:,}", *money, str(line["open"])))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        texts = [
            cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in _cells(row, widths)
        ]
        yield "  ".join(texts).rstrip()
    yield f"Counters as of {made.at:%Y-%m-%d %H:%M:%S.%f} UTC, entry {made.position}; rows and roll-ups are newer."
    for finding in told["findings"]:
        yield "Counter differs: {what} of {of} {month}: counted {counter}, the ledger says {ledger}.".format(**finding)
    for found in told["differences"]:
        key = " ".join(found["key"])
        yield f"Roll-up differs: {found['table']} {key}: {found['what']} {found['rolled']}, its rows {found['rows']}."
    words = "The ledger holds: rows = roll-ups = counters" if told["holds"] else "The ledger does NOT hold"
    yield f"{words}. {told['seconds']:.2f} s"


def _cells(row: tuple[str, ...], widths: list[int]) -> Any:
    return enumerate(zip(row, widths, strict=True))


def _dollars(nano: int | None) -> str:
    """Exact, to the nano-dollar."""
    if nano is None:
        return "-"
    return f"{'-' * (nano < 0)}{abs(nano) // NANO:,}.{abs(nano) % NANO:09d}"
