"""pages: does the console stay as quick with five million rows behind it, and how long does a proof of them take?

Two databases of the same tenants, one with a thousand times the rows, made by INSERT ... SELECT with their roll-ups.
Every page is asked for in turn from both, in process, by an owner of the tenant that has half of all rows.
"""

from __future__ import annotations

import base64
import json
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from attestation import receipts
from benchmarks import harness
from benchmarks.ledger_parts import cast
from benchmarks.ledger_parts.stand import Stand, say
from tenants import keys
from tenants.models import LedgerBatch, Member, Tenant, UsageDay, UsageEndUser, UsageEvent, UsageMonth, User

TENANTS, KEYS, DAYS, TURNS = 8 if harness.QUICK else 50, 4, 120, 5
VACUUM = {"postgresql": "VACUUM ANALYZE", "sqlite": "ANALYZE"}  # what autovacuum does soon after
ELSEWHERE = {"overview", "status"}  # add up every room's cards: their queries are printed and not the ledger's
ROWS, DAY, MONTH, END_USER = (model._meta.db_table for model in (UsageEvent, UsageDay, UsageMonth, UsageEndUser))


def measure(ground: Stand, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    small, large = (500, 10_000) if quick else (5_000, 5_000_000)
    sides: dict[str, tuple[str, Client]] = {}
    for side, count in (("small", small), ("large", large)):
        url = ground.database_url if side == "small" else ground.another_database(side)
        switch(url)
        started = time.perf_counter()
        sides[side] = url, fill(count)
        say(f"{count:,} rows and their roll-ups in {time.perf_counter() - started:.0f} s")
    took = timings(sides, 2 if quick else TURNS)
    pages = {name: (statistics.median(took["small", name]), statistics.median(took["large", name])) for name in paths()}
    queries = {name: count_queries(sides, name) for name in pages}
    for name, (few, many) in pages.items():
        say(f"{name:18} {few * 1e3:7.1f} ms {many * 1e3:7.1f} ms  x{many / few:.2f}  {queries[name]} queries")
    figures = {"page_growth": round(max(many / few for few, many in pages.values()), 2)}
    figures["page_queries"] = max(count for name, count in queries.items() if name not in ELSEWHERE)
    switch(sides["large"][0])
    figures["prove_s"] = prove()
    milliseconds = {name: [round(value * 1e3, 2) for value in both] for name, both in pages.items()}
    return figures, {"rows": large, "pages_ms": milliseconds, "queries": queries}


def paths() -> dict[str, Callable[[Tenant], str]]:
    """What is asked for, by the tenant with half of all rows."""
    console = {
        "overview": "",
        "cost": "usage/",
        "ledger rows": "usage/rows/",
        "statement": "usage/statement/",
        "keys": "settings/",
        "limits": "settings/limits/",
        "audit": "settings/audit/",
        "refusals": "refusals/",
        "traffic": "traffic/",
        "calls": "traffic/calls/",
        "feedback": "traffic/feedback/",
        "status": "status/",
    }
    pages: dict[str, Callable[[Tenant], str]] = {name: partial(at, f"/t/{{}}/{page}") for name, page in console.items()}
    pages["API, first page"] = partial(at, "/api/v1/t/{}/usage/")
    pages["API, deep page"] = lambda tenant: at("/api/v1/t/{}/usage/?cursor=", tenant) + deep(tenant)
    return pages


def at(address: str, tenant: Tenant) -> str:
    return address.format(tenant.slug)


def deep(tenant: Tenant) -> str:
    """The cursor of the page in the middle of the tenant's rows."""
    first, last = (tenant.usage.order_by(order)[0].occurred_at for order in ("occurred_at", "-occurred_at"))
    row = tenant.usage.filter(occurred_at__lte=first + (last - first) / 2).order_by("-occurred_at", "-id")[0]
    cursor = json.dumps([row.occurred_at.isoformat(), row.pk])
    return base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")


def switch(url: str) -> None:
    """Points this process at another database."""
    connection.close()
    path = urlsplit(url).path
    connection.settings_dict["NAME"] = path[1:] if connection.vendor == "postgresql" else path


def timings(sides: dict[str, tuple[str, Client]], turns: int) -> dict[tuple[str, str], list[float]]:
    """Seconds of each page on each side, sides in turn; the first request after each switch is not counted."""
    took: dict[tuple[str, str], list[float]] = {(side, name): [] for side in sides for name in paths()}
    for turn in range(turns):
        for side in sorted(sides, reverse=bool(turn % 2)):
            url, client = sides[side]
            switch(url)
            biggest = Tenant.objects.get(slug="tenant-00")
            for name, address in paths().items():
                where = address(biggest)
                get(client, where)
                for _ in range(3):
                    started = time.perf_counter()
                    get(client, where)
                    took[side, name].append(time.perf_counter() - started)
    return took


def count_queries(sides: dict[str, tuple[str, Client]], name: str) -> int:
    """The larger of both sides."""
    counts = []
    for url, client in sides.values():
        switch(url)
        where = paths()[name](Tenant.objects.get(slug="tenant-00"))
        with CaptureQueriesContext(connection) as captured:
            get(client, where)
        counts.append(len(captured))
    return max(counts)


def get(client: Client, where: str) -> None:
    reply = client.get(where, HTTP_HOST="localhost")
    assert reply.status_code == 200, f"{where}: {reply.status_code}"
    b"".join(reply) if reply.streaming else reply.content


def prove() -> float:
    """Seconds of the whole proof: rows against roll-ups, roll-ups against counters."""
    from tenants.ledger import proof
    from tenants.ledger.writer import Writer

    writer = Writer("bench")
    writer.drain()  # rebuilds this Redis from the ledger
    runner = threading.Thread(target=writer.run, daemon=True)
    runner.start()
    started = time.perf_counter()
    found = proof.prove(timeout_s=120)
    differing = proof.differences()
    seconds = time.perf_counter() - started
    writer.stop()
    runner.join(10)
    assert found.holds, f"the proof does not hold: {found.findings}"
    assert not differing, f"rows and roll-ups differ: {differing}"
    return round(seconds, 2)


def fill(count: int) -> Client:
    """Tenants, `count` rows, half of them the first tenant's, their roll-ups; answers its owner's browser."""
    price = cast.priced_model()
    owner = User.objects.create_user("owner", password="parola-1234")
    for number in range(TENANTS):
        tenant = Tenant.objects.create(slug=f"tenant-{number:02}", name=f"Tenant {number}")
        for _ in range(KEYS):
            keys.create(tenant, "bench", owner)
    biggest = Tenant.objects.get(slug="tenant-00")
    Member.objects.create(tenant=biggest, user=owner, role=Member.Role.OWNER)
    statement = receipts.seal("ledger", "bench", [{"request_id": "bench"}])
    batch = LedgerBatch.objects.create(root=statement.subject_digest, size=1, statement=statement)
    with connection.cursor() as cursor:
        indexes = drop_indexes(cursor)
        cursor.execute(rows_sql(), {"count": count, "price": price.pk, "batch": batch.pk, **span(count)})
        for statement_ in (*indexes, *rollups_sql(), audit_sql(count), VACUUM[connection.vendor]):
            cursor.execute(statement_)
    client = Client()
    client.force_login(owner)
    return client


def span(count: int) -> dict[str, float]:
    """Rows lie evenly over the days up to now."""
    seconds = DAYS * 86_400
    return {"start": time.time() - seconds, "step": seconds / count}


def drop_indexes(cursor: Any) -> list[str]:
    """Drops what would be kept up row by row; answers the statements that make it again. PostgreSQL only."""
    if connection.vendor != "postgresql":
        return []
    again = []
    cursor.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'u' AND conrelid = %s::regclass",
        [ROWS],
    )
    for name, definition in cursor.fetchall():
        cursor.execute(f'ALTER TABLE {ROWS} DROP CONSTRAINT "{name}"')
        again.append(f'ALTER TABLE {ROWS} ADD CONSTRAINT "{name}" {definition}')
    cursor.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexname NOT LIKE '%%_pkey'", [ROWS]
    )
    for name, definition in cursor.fetchall():
        cursor.execute(f'DROP INDEX "{name}"')
        again.append(definition)
    return again


def rows_sql() -> str:
    """Row i: even ones are the first tenant's; keys, models, statuses and end users go round."""
    at = "(%(start)s + i * %(step)s)"
    if connection.vendor == "postgresql":
        instant, name = f"to_timestamp({at})", "'req_' || substr(md5(i::text), 1, 24)"
        day = f"(to_timestamp({at}) AT TIME ZONE 'Europe/Istanbul')::date"
    else:
        instant, name = f"datetime({at}, 'unixepoch')", "'req_' || printf('%%024x', i)"
        day = f"date({at} + 10800, 'unixepoch')"
    return f"""
        WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < %(count)s),
        slots AS (SELECT k.id AS key_id, t.id AS tenant_id, row_number() OVER (ORDER BY t.slug, k.id) - 1 AS slot
                  FROM tenants_tenant t JOIN tenants_apikey k ON k.tenant_id = t.id)
        INSERT INTO {ROWS} (source, request_id, tenant_id, key_id, occurred_at, day, status, model, served,
            adapter_digest, arm, weight_bp, price_id, end_user, input_tokens, cached_tokens, output_tokens, cost_nano,
            request_digest, answer_digest, policy_digest, reason, latency_ms, ttft_ms,
            base_digest, engine, engine_version, load_epoch, batch_id, position)
        SELECT 'gateway', {name}, tenant_id, key_id, {instant}, {day},
            CASE i %% 40 WHEN 8 THEN 'blocked' WHEN 9 THEN 'aborted' ELSE 'settled' END,
            'model-' || (i / 8 %% 3), 'model-' || (i / 8 %% 3), '', '', 0, %(price)s,
            CASE i / 2 %% 3 WHEN 0 THEN '' ELSE 'user-' || (i / 2 %% 97) END,
            20 + i %% 900, 0, 1 + i %% 700, (20 + i %% 900) * 3000 + (1 + i %% 700) * 15000,
            '', '', '', '', 100, 40, '', '', '', 0, %(batch)s, 0
        FROM n JOIN slots
        ON slot = {KEYS} * CASE i %% 2 WHEN 0 THEN 0 ELSE 1 + i / 2 %% {TENANTS - 1} END + i / 2 %% {KEYS}
        ORDER BY i"""


def rollups_sql() -> list[str]:
    sums = "sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(cost_nano)"
    columns = "calls, input_tokens, cached_tokens, output_tokens, cost_nano"
    month = "substr(cast(day AS varchar(10)), 1, 4) || substr(cast(day AS varchar(10)), 6, 2)"
    by_day = "tenant_id, day, key_id, model, served, adapter_digest, price_id"
    ends = [f"sum(CASE status WHEN '{status}' THEN 1 ELSE 0 END)" for status in ("blocked", "aborted")]
    return [
        f"INSERT INTO {DAY} ({by_day}, {columns}, blocked, aborted)"
        f" SELECT {by_day}, count(*), {sums}, {', '.join(ends)} FROM {ROWS} GROUP BY {by_day}",
        f"INSERT INTO {MONTH} (tenant_id, month, {columns}, corrected_nano)"
        f" SELECT tenant_id, {month}, count(*), {sums}, 0 FROM {ROWS} GROUP BY 1, 2",
        f"INSERT INTO {END_USER} (tenant_id, month, end_user, {columns})"
        f" SELECT tenant_id, {month}, end_user, count(*), {sums} FROM {ROWS} WHERE end_user <> '' GROUP BY 1, 2, 3",
    ]


def audit_sql(count: int) -> str:
    """A change for every fifty calls, evenly over the same days."""
    seconds = f"{time.time()} - i * {DAYS * 86_400 * 50 / count}"
    instant = f"to_timestamp({seconds})" if connection.vendor == "postgresql" else f"datetime({seconds}, 'unixepoch')"
    return f"""
        WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count // 50})
        INSERT INTO tenants_auditentry (tenant_id, action, subject, key_id, at)
        SELECT t.id, 'quota.set', t.slug, '', {instant} FROM n JOIN tenants_tenant t ON t.slug = 'tenant-00'"""
