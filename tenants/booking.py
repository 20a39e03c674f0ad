"""The ledger's tables, written in bulk: rows by COPY (PostgreSQL) or executemany (SQLite), sums by one upsert a table.

No model instances here: this is the writer's hot path. Whoever calls is inside the batch's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any
from uuid import UUID

from django.db import connection

from tenants.entries import Row
from tenants.models import UsageDay, UsageEndUser, UsageEvent, UsageMonth

Sums = dict[tuple[Any, ...], list[int]]

_PLAIN = (
    "source",
    "request_id",
    "day",
    "status",
    "model",
    "served",
    "adapter_digest",
    "arm",
    "weight_bp",
    "end_user",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "cost_nano",
    "request_digest",
    "answer_digest",
    "policy_digest",
    "reason",
    "latency_ms",
    "ttft_ms",
)
_COLUMNS = (*_PLAIN, "occurred_at", "tenant_id", "key_id", "price_id", "corrects_id", "batch_id", "position")
_plain = itemgetter(*_PLAIN)
_DAY = ("tenant_id", "day", "key_id", "model", "served", "adapter_digest", "price_id")
_MONTH = ("tenant_id", "month")
_END_USER = ("tenant_id", "month", "end_user")
_TOTALS = ("calls", "input_tokens", "cached_tokens", "output_tokens", "cost_nano")
_day_key = itemgetter("tenant", "day", "key", "model", "served", "adapter_digest", "price")
_totals = itemgetter("input_tokens", "cached_tokens", "output_tokens", "cost_nano")


def insert(rows: Sequence[tuple[Row, int | None]], batch: int) -> None:
    """Appends ledger rows, each with the id of the row it corrects, in their order in the batch."""
    table, columns = UsageEvent._meta.db_table, ", ".join(_COLUMNS)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor, cursor.cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
            for position, (row, corrects) in enumerate(rows):
                copy.write_row(
                    (*_plain(row), row["occurred_at"], row["tenant"], row["key"] or None, row["price"] or None)
                    + (corrects, batch, position)
                )
        return
    places = ", ".join(["%s"] * len(_COLUMNS))
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} ({columns}) VALUES ({places})",  # noqa: S608  names of ours
            [
                (*_plain(row), _moment(row["occurred_at"]), uuid(row["tenant"]), row["key"] or None)
                + (row["price"] or None, corrects, batch, position)
                for position, (row, corrects) in enumerate(rows)
            ],
        )


def add(rows: Iterable[Row], differences: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Adds `rows` to the roll-ups; differences are what corrections moved in a month, (tenant, YYYYMM).

    Answers what each month touched costs now.
    """
    days: Sums = {}
    months: Sums = {key: [0, 0, 0, 0, 0, nano] for key, nano in differences.items()}
    users: Sums = {}
    for row in rows:
        status, totals = row["status"], _totals(row)
        numbers = (status != "adjustment", *totals, status == "blocked", status == "aborted")
        _sum(days, _day_key(row), numbers)
        if row["end_user"]:
            _sum(users, (row["tenant"], _month(row["day"]), row["end_user"]), numbers[:5])
    for (tenant, day, *_), sums in days.items():
        _sum(months, (tenant, _month(day)), (*sums[:5], 0))
    _upsert(UsageDay._meta.db_table, _DAY, (*_TOTALS, "blocked", "aborted"), days)
    _upsert(UsageEndUser._meta.db_table, _END_USER, _TOTALS, users)
    told = _upsert(UsageMonth._meta.db_table, _MONTH, (*_TOTALS, "corrected_nano"), months, "cost_nano")
    return {(str(UUID(str(tenant))), month): cost for tenant, month, cost in told}


def known(request_ids: Iterable[str]) -> list[tuple[Any, ...]]:
    """(request id, tenant, source, status, id, input, cached, output tokens, cost) of the rows of these calls."""
    ids = list(request_ids)
    columns = "request_id, tenant_id, source, status, id, input_tokens, cached_tokens, output_tokens, cost_nano"
    which, told = "= ANY(%s)", [ids]
    if connection.vendor != "postgresql":
        import orjson

        which, told = "IN (SELECT value FROM json_each(%s))", [orjson.dumps(ids).decode()]  # type: ignore[list-item]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM {UsageEvent._meta.db_table} WHERE request_id {which}", told)  # noqa: S608
        return [(row[0], str(UUID(str(row[1]))), *row[2:]) for row in cursor.fetchall()]


def uuid(text: str) -> str:
    """A tenant's id as this database spells it."""
    return text if connection.features.has_native_uuid_field else text.replace("-", "")


def _upsert(table: str, keys: Sequence[str], columns: Sequence[str], sums: Sums, told: str = "") -> list[Any]:
    """Adds sums to their rows in the order of their keys, so that no two transactions wait for each other."""
    if not sums:
        return []
    values: list[Any] = []
    for key in sorted(sums):
        values += [uuid(key[0]), *key[1:], *sums[key]]
    places = "(" + ", ".join(["%s"] * (len(keys) + len(columns))) + ")"
    query = (
        f"INSERT INTO {table} ({', '.join((*keys, *columns))}) VALUES {', '.join([places] * len(sums))} "  # noqa: S608
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET "
        + ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in columns)
    )
    with connection.cursor() as cursor:
        cursor.execute(query + (f" RETURNING {', '.join(keys)}, {told}" if told else ""), values)
        return cursor.fetchall() if told else []


def _sum(sums: Sums, key: tuple[Any, ...], numbers: Sequence[int]) -> None:
    known_sums = sums.get(key)
    sums[key] = list(map(int, numbers)) if known_sums is None else [a + b for a, b in zip(known_sums, numbers)]  # noqa: B905


def _month(day: str) -> str:
    return day[:4] + day[5:7]


def _moment(text: str) -> str:
    """An instant as Django writes it to SQLite."""
    return text[:-1].replace("T", " ").removesuffix(".000000")
