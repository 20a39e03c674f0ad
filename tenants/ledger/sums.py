"""The ledger's rows summed anew and laid beside the roll-ups. One query a roll-up: one snapshot under any load.

Reads every row, so it takes seconds by the million; pages read the roll-ups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import connection, models

from tenants.models import UsageDay, UsageEndUser, UsageEvent, UsageMonth

TOTALS = ("calls", "input_tokens", "cached_tokens", "output_tokens", "cost_nano")
STATES = ("blocked", "aborted")


@dataclass(frozen=True)
class Rollup:
    """A roll-up table: its keys, its sums, and the ledger's columns whose groups make up its keys."""

    model: type[models.Model]
    keys: Sequence[str]
    sums: Sequence[str]
    groups: Sequence[str]
    where: str = "1 = 1"

    @property
    def name(self) -> str:
        return self.model._meta.model_name or ""


DAYS = ("tenant_id", "day", "key_id", "model", "served", "adapter_digest", "price_id")
ROLLUPS = (
    Rollup(UsageDay, DAYS, (*TOTALS, *STATES), DAYS),
    Rollup(UsageMonth, ("tenant_id", "month"), TOTALS, ("tenant_id", "day")),
    Rollup(
        UsageEndUser, ("tenant_id", "month", "end_user"), TOTALS, ("tenant_id", "day", "end_user"), "end_user <> ''"
    ),
)


@dataclass(frozen=True)
class Line:
    """One key of a roll-up, the tenant's id first, with what its rows add up to and what the roll-up says."""

    table: str
    key: tuple[str, ...]
    sums: Sequence[str]
    rows: tuple[int, ...]
    rolled: tuple[int, ...]

    @property
    def differs(self) -> bool:
        return self.rows != self.rolled


@dataclass(frozen=True)
class Difference:
    """`rows` and `rolled` are what both say of `what`, a column of `table`, under `key`."""

    table: str
    key: tuple[str, ...]
    what: str
    rows: int
    rolled: int


def differences() -> list[Difference]:
    """Where a roll-up is not the sum of its rows, column by column; empty if all are."""
    return [found for rollup in ROLLUPS for line in lines(rollup) for found in differing(line)]


def months() -> list[Line]:
    """Every month of every tenant, equal or not."""
    return list(lines(ROLLUPS[1], every=True))


def differing(line: Line) -> Iterator[Difference]:
    for what, rows, rolled in zip(line.sums, line.rows, line.rolled, strict=True):
        if rows != rolled:
            yield Difference(line.table, line.key, what, rows, rolled)


def lines(rollup: Rollup, every: bool = False) -> Iterator[Line]:
    """The keys of a roll-up whose sums differ, or `every` one."""
    with connection.cursor() as cursor:
        cursor.execute(_query(rollup, every))
        for row in cursor.fetchall():
            tenant, *rest = row[: len(rollup.keys)]
            numbers = [int(number) for number in row[len(rollup.keys) :]]
            half = len(rollup.sums)
            key = (str(UUID(str(tenant))), *map(str, rest))
            yield Line(rollup.name, key, rollup.sums, tuple(numbers[:half]), tuple(numbers[half:]))


def _query(rollup: Rollup, every: bool) -> str:
    """Rows are added up by the columns they have; what is left is small, gets the roll-up's keys and is added to it."""
    month = "to_char(day, 'YYYYMM')" if connection.vendor == "postgresql" else "strftime('%Y%m', day)"
    spelled = {"month": month, "key_id": "COALESCE(key_id, '')", "price_id": "COALESCE(price_id, 0)"}
    summed = {name: f"SUM({name})" for name in rollup.sums} | {
        "calls": "SUM(CASE WHEN source = 'gateway' THEN 1 ELSE 0 END)",
        "blocked": "SUM(CASE WHEN status = 'blocked' THEN 1 ELSE 0 END)",
        "aborted": "SUM(CASE WHEN status = 'aborted' THEN 1 ELSE 0 END)",
    }
    keys, groups, none = ", ".join(rollup.keys), ", ".join(rollup.groups), ", ".join("0" for _ in rollup.sums)
    sides = [f"SUM({side}{number})" for side in "rt" for number in range(len(rollup.sums))]
    unequal = " OR ".join(f"SUM(r{number}) <> SUM(t{number})" for number in range(len(rollup.sums)))
    return f"""
        WITH summed AS (
            SELECT {groups}, {", ".join(f"{summed[name]} AS {name}" for name in rollup.sums)}
            FROM {UsageEvent._meta.db_table} WHERE {rollup.where} GROUP BY {groups}
        ), both_sides ({keys}, {", ".join(side[4:-1] for side in sides)}) AS (
            SELECT {", ".join(spelled.get(name, name) for name in rollup.keys)}, {", ".join(rollup.sums)}, {none}
            FROM summed
            UNION ALL SELECT {keys}, {none}, {", ".join(rollup.sums)} FROM {rollup.model._meta.db_table}
        )
        SELECT {keys}, {", ".join(sides)} FROM both_sides GROUP BY {keys}
        {"" if every else f"HAVING {unequal}"} ORDER BY {keys}
    """  # noqa: S608  names of ours
