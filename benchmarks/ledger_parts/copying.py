"""copy: what booking costs, against PostgreSQL's COPY of the same rows.

The writer's side is its whole work: entries read from the stream, rows, roll-ups, Merkle root and signature, position,
commit, confirmation in Redis. COPY gets the same rows, finished, into a table of the same columns, constraints and
indexes that grows alongside; beside it into a bare table, and row by row, one transaction each. Medians of turns taken
one after the other, with nothing else running.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import orjson
import redis
from django.db import connection

from benchmarks.ledger_parts import cast
from benchmarks.ledger_parts.stand import Stand, say
from tenants import metering
from tenants.ledger.writer import Writer
from tenants.models import UsageEvent

TURNS = 3
TABLE = UsageEvent._meta.db_table


def measure(ground: Stand, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    rows, singles = (2_000, 40) if quick else (100_000, 2_000)
    people = cast.accounts(20)
    writer = Writer("bench")
    client = redis.Redis.from_url(ground.redis_url)
    fill(client, people, 500)
    writer.drain()  # warm, and the Redis is the ledger's own
    with connection.cursor() as cursor:
        for name, like in (("copied", "INCLUDING ALL"), ("single", "INCLUDING ALL"), ("bare", "")):
            cursor.execute(f"CREATE TABLE {name} (LIKE {TABLE} {like})")
    turns: dict[str, list[float]] = {"writer": [], "copied": [], "bare": [], "single": []}
    for turn in range(TURNS):
        before = last()
        fill(client, people, rows)
        started = time.perf_counter()
        writer.drain()
        turns["writer"].append((time.perf_counter() - started) / rows)
        data = exported(before)
        for name in ("copied", "bare"):
            turns[name].append(copy(name, data) / rows)
        turns["single"].append(one_by_one(data, singles) / singles)
        say(
            f"turn {turn + 1}: "
            + ", ".join(f"{name} {took[-1] * 1e6:.1f}" for name, took in turns.items())
            + " us a row"
        )
        assert UsageEvent.objects.filter(pk__gt=before).count() == rows, "the writer left rows out"
    took = {name: statistics.median(values) for name, values in turns.items()}
    figures = {"copy_ratio": round(took["writer"] / took["copied"], 2)}
    figures["event_tx_ratio"] = round(took["writer"] / took["single"], 3)
    facts = {f"{name}_us_a_row": round(value * 1e6, 1) for name, value in took.items()}
    bare = round(took["writer"] / took["bare"], 2)
    say(f"{1 / took['writer']:,.0f} rows/s; {bare} times COPY into a bare table")
    return figures, facts | {"rows": rows, "bare_ratio": bare, "turns": turns}


def fill(client: redis.Redis, people: list[cast.Account], count: int) -> None:
    """Entries as SETTLE writes them for calls whose hold was found."""
    now = int(time.time() * 1_000_000)
    for start in range(0, count, 1_000):
        pipe = client.pipeline(transaction=False)
        for number in range(start, min(start + 1_000, count)):
            call = cast.settled(cast.event(people[number % len(people)]), 40 + number % 900, number % 700)
            pipe.xadd(metering.STREAM, {"event": orjson.dumps(call), "at": str(now + number)})
        pipe.execute()


def last() -> int:
    newest = UsageEvent.objects.order_by("-pk").first()
    return newest.pk if newest else 0


def exported(after: int) -> list[bytes]:
    """The rows behind `after` in COPY's text format."""
    with connection.cursor() as cursor:
        query = f"COPY (SELECT * FROM {TABLE} WHERE id > {after} ORDER BY id) TO STDOUT"
        with cursor.copy(query) as out:
            return [bytes(part) for part in out]


def copy(table: str, data: list[bytes]) -> float:
    """Seconds of one COPY in one transaction."""
    started = time.perf_counter()
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as into:
        for part in data:
            into.write(part)
    return time.perf_counter() - started


def one_by_one(data: list[bytes], count: int) -> float:
    """Seconds of `count` rows, each inserted by a transaction of its own; no roll-up, no signature, no stream."""
    rows = [line.split(b"\t") for line in b"".join(data[: count * 2]).splitlines()[:count]]
    values = [[None if cell == b"\\N" else cell.decode() for cell in row] for row in rows]
    statement = f"INSERT INTO single VALUES ({', '.join(['%s'] * len(values[0]))})"
    started = time.perf_counter()
    with connection.cursor() as cursor:
        for row in values:
            cursor.execute(statement, row)
    return time.perf_counter() - started
