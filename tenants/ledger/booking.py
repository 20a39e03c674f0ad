"""The ledger's tables, written in bulk: rows by COPY (PostgreSQL) or executemany (SQLite), sums by one upsert a table.

No model instances here: this is the writer's hot path. Whoever calls is inside the batch's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any
from uuid import UUID

import orjson
from django.db import connection

from tenants.ledger.entries import Row
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
    "base_digest",
    "engine",
    "engine_version",
    "load_epoch",
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
        into = f"COPY {table} ({columns}) FROM STDIN"
        with connection.wrap_database_errors, connection.cursor() as cursor, cursor.cursor.copy(into) as copy:
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
    users: Sums = {}
    months: Sums = {key: [0, 0, 0, 0, 0, nano] for key, nano in differences.items()}
    for row in rows:
        numbers = (row["status"] != "adjustment", *_totals(row))
        day = days.setdefault(_day_key(row), [0] * 7)
        _sum(day, numbers)
        day[5] += row["status"] == "blocked"
        day[6] += row["status"] == "aborted"
        if row["end_user"]:
            _sum(users.setdefault((row["tenant"], _month(row["day"]), row["end_user"]), [0] * 5), numbers)
    for (tenant, day_text, *_), sums in days.items():
        _sum(months.setdefault((tenant, _month(day_text)), [0] * 6), sums)
    _upsert(UsageDay._meta.db_table, _DAY, (*_TOTALS, "blocked", "aborted"), days)
    _upsert(UsageEndUser._meta.db_table, _END_USER, _TOTALS, users)
    told = _upsert(UsageMonth._meta.db_table, _MONTH, (*_TOTALS, "corrected_nano"), months, "cost_nano")
    return {(str(UUID(str(tenant))), month): cost for tenant, month, cost in told}


def known(request_ids: Iterable[str]) -> list[tuple[Any, ...]]:
    """(request id, tenant, source, status, id, input, cached, output tokens, cost) of the rows of these calls."""
    ids, table = list(request_ids), UsageEvent._meta.db_table
    columns = "request_id, tenant_id, source, status, id, input_tokens, cached_tokens, output_tokens, cost_nano"
    if connection.vendor == "postgresql":
        # By the index whatever the planner knows of a table that grows: OFFSET 0 keeps the inner query as it is.
        inner = f"SELECT {columns} FROM {table} WHERE request_id = asked.id OFFSET 0"  # noqa: S608  names of ours
        query, told = f"SELECT told.* FROM unnest(%s::varchar[]) asked(id), LATERAL ({inner}) told", [ids]  # noqa: S608
    else:
        query = f"SELECT {columns} FROM {table} WHERE request_id IN (SELECT value FROM json_each(%s))"  # noqa: S608
        told = [orjson.dumps(ids).decode()]  # type: ignore[list-item]
    with connection.cursor() as cursor:
        cursor.execute(query, told)
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


def _sum(sums: list[int], numbers: Sequence[int]) -> None:
    sums[0] += numbers[0]
    sums[1] += numbers[1]
    sums[2] += numbers[2]
    sums[3] += numbers[3]
    sums[4] += numbers[4]


def _month(day: str) -> str:
    return day[:4] + day[5:7]


def _moment(text: str) -> str:
    """An instant as Django writes it to SQLite."""
    return text[:-1].replace("T", " ").removesuffix(".000000")
