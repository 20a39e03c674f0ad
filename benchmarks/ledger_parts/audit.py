"""What callers were told against what the ledger says."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.db import connection

from benchmarks.ledger_parts import cast
from tenants.ledger import proof
from tenants.models import UsageEvent

ROWS = UsageEvent._meta.db_table
COST = f"(told.inputs * {cast.INPUT} + told.outputs * {cast.OUTPUT} + 500000) / 1000000"
FOUND = f"""
    CREATE TEMPORARY TABLE found AS
    SELECT told.request_id, coalesce(booked.usage, 0) AS usage, coalesce(booked.corrections, 0) AS corrections,
        booked.tenants, told.key_id = booked.key_id AND told.inputs = booked.inputs AND told.outputs = booked.outputs
        AND {COST} = booked.cost AS same
    FROM told LEFT JOIN (
        SELECT request_id, min(key_id) AS key_id, count(DISTINCT tenant_id) AS tenants,
            sum(CASE source WHEN 'gateway' THEN 1 ELSE 0 END) AS usage,
            sum(CASE source WHEN 'gateway' THEN 0 ELSE 1 END) AS corrections,
            sum(input_tokens) AS inputs, sum(output_tokens) AS outputs, sum(cost_nano) AS cost
        FROM {ROWS} GROUP BY request_id) AS booked ON booked.request_id = told.request_id"""


@dataclass
class Audit:
    """`lost` leaves out the calls of the cut tail, which are `tail_lost`."""

    delivered: int = 0
    rows: int = 0
    corrections: int = 0
    lost: int = 0
    doubled: int = 0
    misstated: int = 0
    tail_booked: int = 0
    tail_lost: int = 0
    proved: bool = False
    findings: list[str] = field(default_factory=list)


def audit(told: Iterable[Path], tail: set[str]) -> Audit:
    """Each delivered answer against its row and its corrections; rows against roll-ups; roll-ups against counters."""
    found = Audit()
    with connection.cursor() as cursor:
        load(cursor, told)
        cursor.execute(FOUND)
        found.delivered = one(cursor, "SELECT count(*) FROM found")
        found.rows = one(cursor, f"SELECT count(*) FROM {ROWS} WHERE source = 'gateway'")
        found.corrections = one(cursor, f"SELECT count(*) FROM {ROWS} WHERE source <> 'gateway'")
        found.doubled = one(cursor, "SELECT count(*) FROM found WHERE usage > 1 OR corrections > 1 OR tenants > 1")
        cursor.execute("SELECT request_id FROM found WHERE usage = 0")
        missing = {row[0] for row in cursor.fetchall()}
        cursor.execute("SELECT request_id FROM found WHERE usage = 1 AND NOT same")
        wrong = [row[0] for row in cursor.fetchall()]
    booked = set(UsageEvent.objects.filter(request_id__in=tail).values_list("request_id", flat=True))
    found.tail_booked, found.tail_lost = len(booked), len(missing & tail)
    found.lost = len(missing - tail)
    prove(found)
    found.misstated = len(wrong) + len(found.findings)
    found.findings += [f"no row: {id_}" for id_ in sorted(missing)[:5]] + [f"differs: {id_}" for id_ in wrong[:5]]
    return found


def load(cursor: Any, told: Iterable[Path]) -> None:
    cursor.execute(
        "CREATE TEMPORARY TABLE told (request_id varchar(40), key_id varchar(16), inputs bigint, outputs bigint)"
    )
    for path in told:
        with path.open(newline="") as file:
            if connection.vendor == "postgresql":
                with cursor.copy("COPY told FROM STDIN") as copy:
                    while part := file.read(1 << 20):
                        copy.write(part)
            else:
                rows = csv.reader(file, delimiter="\t")
                cursor.executemany("INSERT INTO told VALUES (%s, %s, %s, %s)", list(rows))


def one(cursor: Any, query: str) -> int:
    cursor.execute(query)
    return int(cursor.fetchone()[0])


def prove(found: Audit) -> None:
    """Adds what the ledger's own proof finds."""
    proved = proof.prove(timeout_s=120)
    found.proved = proved.holds
    found.findings += [f"counters: {finding}" for finding in proved.findings]
    found.findings += [f"roll-ups: {difference}" for difference in proof.differences()]
